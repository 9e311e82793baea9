-- A call that is cancelled ends, and so does what it ran on the remotes.
\set VERBOSITY terse
create view working as select query from pg_stat_activity where application_name ~ '^pmpp' and state = 'active';
create procedure wait_until_idle() language plpgsql as $$
begin
    for i in 1..200 loop
        perform pg_stat_clear_snapshot();
        exit when not exists (select from working);
        perform pg_sleep(0.01);
    end loop;
end
$$;
-- loading the Python package may take longer than the timeout
select pmpp._load();
set statement_timeout = '200ms';
select * from pmpp.distribute(null::int, 'loopback', array['select 1 from pg_sleep(100)', 'select 2 from pg_sleep(100)'], num_workers => 2);
reset statement_timeout;
call wait_until_idle();
select * from working;
set statement_timeout = '200ms';
select * from pmpp.distribute('[{"connection": "loopback", "query": "select 1 from pg_sleep(100)"}]'::jsonb) as (i int);
reset statement_timeout;
call wait_until_idle();
select * from working;
-- when one query fails, the others are cancelled
select * from pmpp.distribute(null::int, 'loopback', array['select 1 from pg_sleep(100)', 'select 1/0'], num_workers => 2);
call wait_until_idle();
select * from working;
-- the session is fit for use
select * from pmpp.distribute(null::int, 'loopback', array['select 1', 'select 2']) i order by i;
drop procedure wait_until_idle;
drop view working;
