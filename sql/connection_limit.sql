-- How many connections a call may have open, whatever it asks for.
\set VERBOSITY terse
-- Each query waits until as many have started as it wants to meet, and counts the workers.
create sequence arrivals;
create function meet(wanted int) returns int language plpgsql as $$
begin
    perform nextval('arrivals');
    while (select last_value from arrivals) < wanted loop
        perform pg_sleep(0.001);
    end loop;
    return count(*) from pg_stat_activity where application_name ~ '^pmpp ' and state = 'active';
end
$$;
-- The most workers that there were at a time, of one item or of several.
create function pg_temp.most(wanted int, items int default 1) returns int language plpgsql as $$
begin
    perform setval('arrivals', 1, false);
    return max(n) from pmpp.distribute(null::int, array_fill(
        row('loopback', array_fill(format('select meet(%s)', wanted), array[4]), null, 4, null, null)::pmpp.query_manifest, array[items])) n;
end
$$;
select pg_temp.most(4);
insert into pmpp.connection_limit values ('loopback', 2), ('*', 1);
select pg_temp.most(2), pg_temp.most(2, items => 3);
update pmpp.connection_limit set max_workers = 1 where connection = 'loopback';
select pg_temp.most(1), pg_temp.most(1, items => 3);
delete from pmpp.connection_limit where connection = 'loopback';
select pg_temp.most(1), pg_temp.most(1, items => 3);
-- nobody may connect
update pmpp.connection_limit set max_workers = 0;
select pg_temp.most(1);
insert into pmpp.connection_limit values ('loopback', 2);
select pg_temp.most(2);
-- a limit of the whole call
delete from pmpp.connection_limit;
set pmpp.max_workers = 3;
select pg_temp.most(3), pg_temp.most(3, items => 3);
set pmpp.max_workers = 0;
select pg_temp.most(1);
set pmpp.max_workers = 'many';
select pg_temp.most(1);
reset pmpp.max_workers;
select pg_temp.most(4);
-- what makes no sense, and who may write it
insert into pmpp.connection_limit values ('loopback', -1);
insert into pmpp.connection_limit values ('loopback', null);
create role regress_pmpp_member in role pmpp;
set role regress_pmpp_member;
select * from pmpp.connection_limit;
insert into pmpp.connection_limit values ('loopback', 1);
reset role;
drop role regress_pmpp_member;
drop function meet;
drop sequence arrivals;
