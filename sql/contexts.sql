-- Where a call may stand.
\set VERBOSITY terse
-- read-only transactions
begin read only;
select * from pmpp.distribute(null::int, 'loopback', array['select 1']);
select * from pmpp.distribute('[{"connection": "loopback", "query": "select 1"}]'::jsonb) as (i int);
select command, result from pmpp.meta('loopback', array['set a.b to 1']);
commit;
-- prepared statements
prepare p(text[]) as select * from pmpp.distribute(null::int, 'loopback', $1) i order by i;
execute p('{select 1,select 2}');
execute p('{select 3}');
deallocate p;
-- cursors
begin;
declare c cursor for select * from pmpp.distribute(null::int, 'loopback', array['select generate_series(1, 5)']) i order by i;
fetch 2 from c;
fetch 2 from c;
close c;
commit;
-- functions with exception blocks, and more than one call in a statement
create function tries() returns setof int language plpgsql as $$
begin
    for k in 0..2 loop
        begin
            return query select * from pmpp.distribute(null::int, 'loopback', array[format('select 10 / %s', k)]);
        exception when division_by_zero then
            return next -1;
        end;
    end loop;
end
$$;
select * from tries();
select a, b from pmpp.distribute(null::int, 'loopback', array['select 1', 'select 2']) a,
       lateral pmpp.distribute(null::int, 'loopback', array[format('select %s * 10', a)]) b order by 1;
-- in the target list
select pmpp.distribute(null::int, 'loopback', array['select 1', 'select 2']) order by 1;
select (pmpp.meta('loopback', array['set a.b to 1'])).result;
-- a call inside the conversion of another call's rows
create function fits(i int) returns boolean language sql as $$ select count(*) = 1 from pmpp.distribute(null::int, 'loopback', array['select 1']) $$;
create domain checked as int check (fits(value));
select * from pmpp.distribute(null::checked, 'loopback', array['select 7', 'select 8'], num_workers => 1) c order by c;
select * from pmpp.distribute(null::checked, 'loopback', array['select 7', 'select 1/0'], num_workers => 1);
drop domain checked;
drop function fits, tries;
-- limit, and a result that is not wanted
select * from pmpp.distribute(null::int, 'loopback', array['select generate_series(1, 10000)']) limit 1;
select count(*) from pmpp.distribute(null::int, 'loopback', array['select generate_series(1, 10000)', 'select generate_series(1, 1001)', 'select 1 where false']);
-- where PostgreSQL runs all it can in parallel: a manifest in JSON is read by a worker of its own
-- (newer servers call the setting debug_parallel_query)
select name as parallel from pg_settings where name in ('force_parallel_mode', 'debug_parallel_query')
\gset
set :parallel = on;
select * from pmpp.distribute('[{"connection": "loopback", "query": "select 1", "num_workers": 1}]'::json) as (i int);
reset :parallel;
