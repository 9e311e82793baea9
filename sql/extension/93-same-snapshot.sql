-- A STABLE function exports the snapshot of the statement that calls it. A VOLATILE function would
-- export a later one in a transaction that is READ COMMITTED.
create function pmpp.same_snapshot() returns text[]
language plpgsql stable parallel unsafe security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    -- Another server may have a snapshot of the same name. A standby has its primary's identifier.
    identity constant text := $identity$pg_catalog.concat_ws(' ',
        (select system_identifier from pg_catalog.pg_control_system()),
        extract(epoch from pg_catalog.pg_postmaster_start_time()),
        (select d.oid from pg_catalog.pg_database d
          where d.datname operator(pg_catalog.=) pg_catalog.current_database()))$identity$;
    -- version() names the databases that spread tables over machines and are a PostgreSQL of their own.
    -- Citus is an extension.
    spread constant text := '[(](Greenplum|Greengage|Apache Cloudberry|Cloudberry) |-YB-|[(]Postgres-X[LC2]';
    is_spread boolean := version() ~ spread;
    here text;
begin
    if exists (select from pg_extension where extname = 'citus') then
        is_spread := exists (select from pg_dist_partition);
    end if;
    if is_spread then
        raise feature_not_supported using
            message = 'same_snapshot() cannot be used in a database whose tables are spread over several servers',
            detail = 'Each of those servers takes a snapshot of its own for every connection.',
            hint = 'Make sure that nobody writes meanwhile, and leave same_snapshot() out.';
    end if;
    execute 'select ' || identity into here;
    return array[
        format($command$do $check$
begin
    if %s operator(pg_catalog.<>) %L then
        raise object_not_in_prerequisite_state using
            message = 'same_snapshot() is for connections to the database that it is called in',
            hint = 'Run the queries of other databases in a call of their own.';
    end if;
end
$check$ $command$, identity, here),
        'begin isolation level repeatable read, read only',
        format('set transaction snapshot %L', pg_export_snapshot())
    ];
end
$$;
comment on function pmpp.same_snapshot() is
    'setup commands with which connections to this database see what the calling statement sees as committed';
