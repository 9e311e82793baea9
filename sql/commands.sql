-- Statements that return no rows: meta(), and their command and tag elsewhere.
\set VERBOSITY terse
create table c (i int);
select * from pmpp.meta('loopback', array['insert into c values (1), (2)', 'create table c2 (i int)', 'do ''begin end'''], num_workers => 1);
select * from pmpp.meta('loopback', array['update c set i = 3', 'delete from c2'], result_format => 'binary', num_workers => 1);
select * from pmpp.meta(connection => 'loopback', sql_list => array['vacuum c'], cpu_multiplier => 0.5);
select * from pmpp.distribute(null::pmpp.command_with_result, 'loopback', array['drop table c2']);
select * from pmpp.distribute('[{"connection": "loopback", "query": "truncate c"}]'::json) as (command text, result varchar);
-- meta() throws rows away
select * from pmpp.meta('loopback', array['insert into c values (7) returning i, ''returned''']);
-- a row type with other columns has no place for command and tag
select * from pmpp.distribute(null::int, 'loopback', array['truncate c']);
select * from pmpp.distribute(null::pmpp.command_result, 'loopback', array['truncate c']);
create temp table two (a int, b text);
select * from pmpp.distribute(null::two, 'loopback', array['truncate c']);
select * from pmpp.meta('loopback', array['select 1', 'select generate_series(1, 1000)', 'show work_mem'], num_workers => 1);
-- of several statements in a string those with rows count, if there are any
select * from pmpp.distribute(null::int, 'loopback', array['set work_mem to ''5MB''; select 1; truncate c; select 2'], num_workers => 1);
select * from pmpp.distribute(null::pmpp.command_with_result, 'loopback', array['truncate c; select ''a'', ''b''']);
select * from pmpp.meta('loopback', array['truncate c; select 1; truncate c']);
-- COPY
select * from pmpp.meta('loopback', array['copy c to stdout']);
select * from pmpp.meta('loopback', array['copy c from stdin']);
-- what a query does is not undone when the caller is rolled back
begin;
select * from pmpp.meta('loopback', array['insert into c values (99)']);
rollback;
select * from c where i = 99;
drop table c;
