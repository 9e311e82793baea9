-- pmpp gives its workers an application_name by which this view finds them. The view has only
-- the sessions that the current user may see completely in pg_stat_activity. The pattern has no
-- backslashes, whose meaning would depend on standard_conforming_strings.
create view pmpp.activity as
select a.pid,
       w.caller[1]::integer as caller_pid,
       w.caller[2]::integer as item,
       a.usename,
       a.datname,
       a.client_addr,
       a.state,
       a.query,
       pg_catalog.clock_timestamp() operator(pg_catalog.-) a.query_start as running_time,
       a.wait_event_type,
       a.wait_event,
       pg_catalog.pg_blocking_pids(a.pid)
           operator(pg_catalog.||) pg_catalog.pg_safe_snapshot_blocking_pids(a.pid) as blocked_by
  from pg_catalog.pg_stat_activity a
 cross join lateral pg_catalog.regexp_match(a.application_name, '^pmpp ([0-9]{1,9}) item ([0-9]{1,9})$') w(caller)
 where w.caller is not null
   and (pg_catalog.pg_has_role(a.usesysid, 'usage') or pg_catalog.pg_has_role('pg_read_all_stats', 'usage'));
comment on view pmpp.activity is
    'the workers of pmpp on this server, with the process id of the session that they work for';
