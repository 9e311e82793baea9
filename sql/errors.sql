-- A query that fails on the remote: its own error, and which query it was.
\set SHOW_CONTEXT never
select * from pmpp.distribute(null::int, 'loopback', array['select 1', 'select 1/0'], num_workers => 1);
\echo :SQLSTATE
select * from pmpp.distribute(null::int, 'loopback', array['select nosuch from pg_class']);
\echo :SQLSTATE
select * from pmpp.meta('loopback', array['do $_$ begin raise exception ''own'' using errcode = ''ZZ123'', detail = ''Own detail.'', hint = ''Own hint.''; end $_$']);
\echo :SQLSTATE
select * from pmpp.distribute(null::int, 'loopback', array['select ' || repeat('1 + ', 200) || '''x''::int']);
\echo :SQLSTATE
select * from pmpp.distribute(null::int, 'loopback', array['select 1'], setup_commands => array['set work_mem to ''64kB''', 'set nosuch to 1']);
\echo :SQLSTATE
-- a value that does not fit
select * from pmpp.distribute(null::int, 'loopback', array['select 1', 'select ''abc''']);
\echo :SQLSTATE
select * from pmpp.distribute(null::int, 'loopback', array['select 3000000000'], result_format => 'binary');
\echo :SQLSTATE
-- a wrong number of columns
select * from pmpp.distribute(null::int, 'loopback', array['select 1', 'select 1, 2']);
\echo :SQLSTATE
select * from pmpp.distribute(null::int, 'loopback', array['select']);
\echo :SQLSTATE
-- in the record form PL/Python names pmpp as the source
select * from pmpp.distribute('[{"connection": "loopback", "query": "select 1/0"}]'::jsonb) as (i int);
\echo :SQLSTATE
select * from pmpp.distribute('[{"connection": "loopback", "num_workers": 1, "queries": ["select 1", "select 1, 2"]}]'::jsonb) as (i int);
\echo :SQLSTATE
-- a connection that cannot be made
\set VERBOSITY terse
select * from pmpp.distribute(null::int, 'host=/nonexistent dbname=x password=secret', array['select 1']);
select * from pmpp.distribute(null::int, 'host=host.invalid', array['select 1']);
select * from pmpp.broadcast(null::int, array['loopback', 'host=127.0.0.1 port=1 dbname=x'], 'select 1 from pg_sleep(100)');
-- the error can be caught, and the next call works
do $$
begin
    perform pmpp.distribute(null::int, 'loopback', array['select 1/0']);
exception when division_by_zero then
    raise notice 'caught: % (%)', sqlerrm, sqlstate;
end
$$;
select * from pmpp.distribute(null::int, 'loopback', array['select 1']);
select * from pmpp.distribute('[{"connection": "loopback", "query": "select"}]'::jsonb) as (i int);
