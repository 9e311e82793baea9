-- How many connections are made, and what runs on them.
\set VERBOSITY terse
-- Each query waits until as many others have started as it wants to meet.
create sequence arrivals;
create function meet(wanted int) returns int language plpgsql as $$
begin
    perform nextval('arrivals');
    for i in 1..1000 loop
        exit when (select last_value from arrivals) >= wanted;
        perform pg_sleep(0.01);
    end loop;
    return pg_backend_pid();
end
$$;
-- How many connections run the queries, of which as many as wanted must run at the same time.
create function pg_temp.met(queries int, workers int, multiplier float default null, wanted int default null) returns bigint language plpgsql as $$
begin
    perform setval('arrivals', 1, false);
    return count(distinct pid) from pmpp.distribute(null::int, 'loopback', array_fill(format('select meet(%s)', coalesce(wanted, workers)), array[queries]),
        cpu_multiplier => multiplier, num_workers => workers) pid;
end
$$;
select pg_temp.met(queries => 4, workers => 4);
select pg_temp.met(queries => 3, workers => 100, wanted => 3);
select pg_temp.met(queries => 2, workers => 1);
select pg_temp.met(queries => 50, workers => 50);
-- as many as CPUs, and multiples of that
select pg_temp.met(queries => pmpp.num_cpus(), workers => null, wanted => pmpp.num_cpus()) = pmpp.num_cpus() as one_for_each_cpu;
select pg_temp.met(queries => 3 * pmpp.num_cpus(), workers => null, multiplier => 2, wanted => 2 * pmpp.num_cpus()) = 2 * pmpp.num_cpus() as two_for_each_cpu;
select pg_temp.met(queries => 2, workers => null, multiplier => 0.0001, wanted => 1);
-- num_workers goes before cpu_multiplier
select pg_temp.met(queries => 4, workers => 3, multiplier => 0.0001);

-- the items of a manifest run at the same time
select setval('arrivals', 1, false);
select count(distinct pid) from pmpp.broadcast(null::int, array_fill('loopback'::text, array[5]), 'select meet(5)') pid;

-- setup commands run on every connection, in the order given
select * from pmpp.distribute(null::text, 'loopback', array_fill('select current_setting(''a.b'') from pg_sleep(0.05)'::text, array[3]), num_workers => 3,
    setup_commands => array['set a.b to ''first''', 'select set_config(''a.b'', current_setting(''a.b'') || '', second'', false)']);
select * from pmpp.distribute(null::text, '[{"connection": "loopback", "query": "show statement_timeout", "statement_timeout": 12345}]'::jsonb);

-- num_cpus() is asked only if it must be
alter function pmpp.num_cpus() rename to hidden;
select * from pmpp.distribute(null::int, 'loopback', array['select 1', 'select 2'], num_workers => 2) i order by i;
select * from pmpp.distribute(null::int, 'loopback', array['select 1']);
\set VERBOSITY default
\set SHOW_CONTEXT never
select * from pmpp.distribute(null::int, 'loopback', array['select 1', 'select 2']);
alter function pmpp.hidden() rename to num_cpus;
select pmpp.detect_cpus() = pmpp.num_cpus() as same;
drop function meet;
drop sequence arrivals;
