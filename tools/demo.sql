-- What pmpp does, on the tables of pgbench. Run by "make demo".
create extension pmpp cascade;

-- ---- Count every table, the largest first ----

select format('host=''%s'' port=%s user=%s dbname=%s', :'HOST', :'PORT', :'USER', :'DBNAME') as here,
       format('host=''%s'' port=%s user=%s dbname=archive', :'HOST', :'PORT', :'USER') as archive \gset
create temporary table table_counts (table_name text, row_count bigint);

select * from pmpp.distribute(null::table_counts, :'here', array(
           select format('select %L, count(*) from %I', table_name, table_name)
             from information_schema.tables
            where table_schema = 'public'
       ))
 order by row_count desc, table_name;

-- ---- Aggregate a partitioned table in two stages ----

create temporary table branches (bid integer, accounts bigint, balance numeric, digest text);

-- in one session
set max_parallel_workers_per_gather = 0;
\timing on
create temporary table serially as
select bid, count(*) as accounts, sum(abalance) as balance, max(md5(aid || filler)) as digest
  from pgbench_accounts group by bid;

-- one query for each partition, as many at a time as there are CPUs
create temporary table with_pmpp as
select bid, sum(accounts) as accounts, sum(balance) as balance, max(digest) as digest
  from pmpp.distribute(null::branches, :'here', array(
           select format('select bid, count(*), sum(abalance), max(md5(aid || filler)) from %s group by bid', relid)
             from pg_partition_tree('pgbench_accounts') where isleaf
       ))
 group by bid;
\timing off
select count(*) as branches,
       not exists (select * from serially except select * from with_pmpp)
       and not exists (select * from with_pmpp except select * from serially) as equal_results
  from with_pmpp;

-- ---- Build indexes in parallel ----

select * from pmpp.meta(:'here', array(
           select format('create index on %s (bid, abalance)', relid)
             from pg_partition_tree('pgbench_accounts') where isleaf
       ))
 order by command;

-- ---- Hide a password in a foreign server ----

create extension postgres_fdw;
create role clerk login password 'for your eyes only' in role pmpp, pg_read_all_data;
select format($$create server loopback foreign data wrapper postgres_fdw
                options (host '127.0.0.1', port %L, dbname %L)$$, :'PORT', :'DBNAME') \gexec
create user mapping for clerk server loopback options (user 'clerk', password 'for your eyes only');
grant usage on foreign server loopback to clerk;

set role clerk;
create temporary table my_result (session_user_there text, accounts bigint);
select * from pmpp.distribute(null::my_result, 'loopback', array[
           'select session_user, count(*) from pgbench_accounts_1'
       ]);
-- without a password an ordinary user gets nowhere
\set ON_ERROR_STOP 0
select * from pmpp.distribute(null::my_result, :'here', array['select session_user, 1']);
\set ON_ERROR_STOP 1
reset role;

-- ---- Run one query in two databases ----

create temporary table answer (database text, tables bigint);
select * from pmpp.broadcast(null::answer, array[:'here', :'archive'],
           'select current_database(), count(*) from pg_tables where schemaname = ''public''')
 order by database;

-- ---- A manifest in JSON ----

select * from pmpp.distribute(null::answer, jsonb_build_array(
           jsonb_build_object('connection', :'here', 'num_workers', 2, 'queries', jsonb_build_array(
               'select ''tellers'', count(*) from pgbench_tellers',
               'select ''branches'', count(*) from pgbench_branches')),
           jsonb_build_object('connection', :'archive', 'query', 'select ''archive'', 0')
       ))
 order by database;

-- ---- Columns named in the query itself ----

select * from pmpp.distribute(jsonb_build_array(
           jsonb_build_object('connection', :'here', 'query', 'select tbalance, tid from pgbench_tellers order by 1 desc limit 3')
       )) as richest (balance numeric, teller integer)
 order by balance desc;
