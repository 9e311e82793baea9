-- same_snapshot: every worker sees what the call sees, and nothing of a database that is not this one.
\set VERBOSITY terse
create table seen (i int);
insert into seen values (1);
select n, regexp_replace(command, '[0-9A-F]{8}-[0-9A-F]{8}-\d+', 'ID')
  from unnest(pmpp.same_snapshot()) with ordinality c(command, n) where n > 1 order by n;
create function pg_temp.counts(setup text[]) returns table (n bigint) language sql as $$
    select * from pmpp.distribute(null::bigint, 'loopback', array['select count(*) from seen', 'select count(*) from seen'], num_workers => 2, setup_commands => setup)
     order by 1 $$;
-- alone, and in a transaction of each isolation level, in which others commit meanwhile
select * from pg_temp.counts(pmpp.same_snapshot());
set quote_all_identifiers = on; -- here, and not there
select * from pg_temp.counts(pmpp.same_snapshot());
reset quote_all_identifiers;
begin isolation level repeatable read;
select count(*) from seen;
select * from pmpp.meta('loopback', array['insert into seen values (2)'], num_workers => 1);
select * from pg_temp.counts(pmpp.same_snapshot());
select * from pg_temp.counts(null);
insert into seen values (3); -- not committed, so nobody else sees it
select * from pg_temp.counts(pmpp.same_snapshot());
rollback;
begin isolation level serializable, read only, deferrable;
select * from pg_temp.counts(pmpp.same_snapshot());
commit;
begin;
select * from pg_temp.counts(pmpp.same_snapshot());
select * from pmpp.meta('loopback', array['insert into seen values (4)'], num_workers => 1);
select * from pg_temp.counts(pmpp.same_snapshot());
commit;
-- it is the snapshot of the calling statement, also if others have committed since that began
begin;
select *, (select count(*) from seen) as here
  from (select count(*) from pmpp.meta('loopback', array['insert into seen values (5)'], num_workers => 1) offset 0) m(done),
       lateral pmpp.distribute(null::bigint, 'loopback', array['select count(*) from seen'], setup_commands => case done when 1 then pmpp.same_snapshot() end) there;
commit;
-- in a manifest
select * from pmpp.distribute(null::bigint, array[row('loopback', array['select count(*) from seen'], null, null, pmpp.same_snapshot(), null)::pmpp.query_manifest]);
select * from pmpp.distribute(jsonb_build_array(jsonb_build_object('connection', 'loopback', 'query', 'select count(*) from seen',
    'setup_commands', to_jsonb(pmpp.same_snapshot()), 'result_format', 'binary'))) as (n bigint);
-- workers cannot write, so nothing can be done in the wrong transaction
select * from pmpp.meta('loopback', array['insert into seen values (9)'], num_workers => 1, setup_commands => pmpp.same_snapshot());
-- in a subtransaction it cannot be
begin;
savepoint s;
select * from pg_temp.counts(pmpp.same_snapshot());
rollback;
do $$ begin perform pmpp.same_snapshot(); exception when division_by_zero then null; end $$;
-- another database, and another role than those that may
select format('host=%s port=%s dbname=postgres', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port')) as elsewhere \gset
select * from pmpp.distribute(null::int, :'elsewhere', array['select 1'], setup_commands => pmpp.same_snapshot());
create role stranger;
set role stranger;
select pmpp.same_snapshot();
reset role;
drop role stranger;
drop table seen;
