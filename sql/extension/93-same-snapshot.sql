-- STABLE makes it export the snapshot of the statement that calls it; a VOLATILE function would
-- take a later one in a transaction that is READ COMMITTED.
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
    here text;
begin
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
revoke all on function pmpp.same_snapshot() from public;
grant execute on function pmpp.same_snapshot() to pmpp;
