-- The forms without a row type are the PL/Python function itself: only it is given the column
-- definition list of the call.

create function pmpp.distribute(query_manifest pmpp.query_manifest[])
returns setof record
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select pmpp._load()")
return GD["pmpp @VERSION@"].records(plpy, query_manifest)
$$;
comment on function pmpp.distribute(pmpp.query_manifest[]) is
    'run the queries of a manifest in parallel; the columns are named in the call';

create function pmpp.distribute(query_manifest jsonb)
returns setof record
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select pmpp._load()")
return GD["pmpp @VERSION@"].records_of_json(plpy, query_manifest)
$$;
comment on function pmpp.distribute(jsonb) is
    'run the queries of a manifest in jsonb in parallel; the columns are named in the call';

create function pmpp.distribute(query_manifest json)
returns setof record
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select pmpp._load()")
return GD["pmpp @VERSION@"].records_of_json(plpy, query_manifest)
$$;
comment on function pmpp.distribute(json) is
    'run the queries of a manifest in json in parallel; the columns are named in the call';
