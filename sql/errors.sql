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
-- last_run tells why
\pset format unaligned
select item, sqlstate, message, detail is not null as detail, hint, context from pmpp.last_run() where sqlstate is not null;
\pset format aligned
-- what the remote server names, and its context; pmpp adds two lines to the context here
create table priced (amount int constraint positive check (amount > 0));
create function set_price(int) returns int language plpgsql as 'begin insert into priced values ($1); return 1; end';
do $$
declare
    s text; t text; c text; k text; d text; lines text;
begin
    perform pmpp.distribute(null::int, 'loopback', array['select set_price(-1)']);
exception when check_violation then
    get stacked diagnostics s = schema_name, t = table_name, c = column_name, k = constraint_name,
        d = pg_exception_detail, lines = pg_exception_context;
    raise warning E'names: %, %, %, %\n%', s, t, c, k, d;
    raise warning '%', (select string_agg(substring(l from 'pmpp[.]\w+'), ', ') from string_to_table(lines, E'\n') l where l ~ '^PL');
end
$$;
\pset format unaligned
select detail, hint, context from pmpp.last_run();
\pset format aligned
drop function set_price;
drop table priced;
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
