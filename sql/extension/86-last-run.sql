create function pmpp.last_run()
returns table (
    item integer,
    query_number integer,
    connection text,
    query text,
    status text,
    sqlstate text,
    message text,
    detail text,
    hint text,
    context text,
    rows bigint,
    command_tag text,
    started timestamptz,
    duration interval,
    pid integer
)
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: return []
return GD["pmpp @VERSION@"].last_run(plpy)
$$;
comment on function pmpp.last_run() is
    'what became of each query of the last call that the current role made in this session';

create function pmpp.unfinished() returns pmpp.query_manifest[]
language plpython3u volatile parallel unsafe security invoker
as $$
if "pmpp @VERSION@" not in GD: return []
return GD["pmpp @VERSION@"].unfinished(plpy)
$$;
comment on function pmpp.unfinished() is
    'a manifest of the queries of the last call that are not done, to be run again';
