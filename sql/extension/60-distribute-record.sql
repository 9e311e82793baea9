-- The forms without a row type are the PL/Python function itself: only it is given the column
-- definition list of the call.

create function @extschema@.distribute(query_manifest @extschema@.query_manifest[])
returns setof record
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select @extschema@._load()")
return GD["pmpp @VERSION@"].rows(plpy, query_manifest, None)
$$;
comment on function @extschema@.distribute(@extschema@.query_manifest[]) is
    'run the queries of a manifest in parallel; the columns are named in the call';
revoke all on function @extschema@.distribute(@extschema@.query_manifest[]) from public;
grant execute on function @extschema@.distribute(@extschema@.query_manifest[]) to pmpp;

create function @extschema@.distribute(query_manifest jsonb)
returns setof record
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select @extschema@._load()")
return GD["pmpp @VERSION@"].rows_of_json(plpy, query_manifest)
$$;
comment on function @extschema@.distribute(jsonb) is
    'run the queries of a manifest in jsonb in parallel; the columns are named in the call';
revoke all on function @extschema@.distribute(jsonb) from public;
grant execute on function @extschema@.distribute(jsonb) to pmpp;

create function @extschema@.distribute(query_manifest json)
returns setof record
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: plpy.execute("select @extschema@._load()")
return GD["pmpp @VERSION@"].rows_of_json(plpy, query_manifest)
$$;
comment on function @extschema@.distribute(json) is
    'run the queries of a manifest in json in parallel; the columns are named in the call';
revoke all on function @extschema@.distribute(json) from public;
grant execute on function @extschema@.distribute(json) to pmpp;
