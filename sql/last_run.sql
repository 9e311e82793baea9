-- What became of the queries of the last call, and how to run those again that are left.
\set VERBOSITY terse
select * from pmpp.last_run();
select pmpp.unfinished();
create view told as
    select item, query_number, connection, query, status, sqlstate, message, rows, command_tag,
           started is not null as started, duration >= interval '0' as duration, pid is not null as pid
      from pmpp.last_run();
create table made ();
select * from pmpp.distribute(null::int, 'loopback', array['select 1', 'select 2; select i from generate_series(1, 3) i'], num_workers => 1) i order by i;
select * from told;
-- when it stops at an error
select * from pmpp.meta('loopback', array['create table built ()', 'create table made ()', 'create index on made (x)'], num_workers => 1);
select * from told;
select * from unnest(pmpp.unfinished());
-- when it goes on
drop table built;
set client_min_messages = error;
set pmpp.on_error = 'continue';
select * from pmpp.meta('loopback', array['create table built ()', 'create table made ()', 'create table more ()'], num_workers => 1);
select * from told;
drop table made;
select * from pmpp.distribute(null::pmpp.command_with_result, pmpp.unfinished());
select * from told;
select * from pmpp.distribute(null::pmpp.command_with_result, pmpp.unfinished());
-- every item keeps its fields
select * from pmpp.distribute(null::int, '[{"connection": "loopback", "queries": ["select 1", "select x", "select y"], "num_workers": 2, "setup_commands": ["set a.b to 1", "set c.d to 2"]},
    {"connection": "loopback", "query": "select 2"},
    {"connection": "loopback", "query": "select z", "cpu_multiplier": 0.5, "result_format": "text"}]'::jsonb) i order by i;
select * from unnest(pmpp.unfinished());
reset pmpp.on_error;
reset client_min_messages;
-- another role sees nothing of it
create role regress_pmpp_other in role pmpp;
create function count_told() returns bigint language sql security definer as 'select count(*) + cardinality(pmpp.unfinished()) from pmpp.last_run()';
alter function count_told() owner to regress_pmpp_other;
select count_told();
set role regress_pmpp_other;
select count(*) from pmpp.last_run();
reset role;
select count(*) from pmpp.last_run();
-- a call that is not valid has run nothing
select * from pmpp.meta('loopback', '{}');
select count(*) from pmpp.last_run();
drop table built, more, made;
drop view told;
drop function count_told();
drop role regress_pmpp_other;
