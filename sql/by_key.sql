-- by_key: one query for each range of values of a column.
\set VERBOSITY terse
set client_min_messages = warning;
create schema keys;
create function pg_temp.pieces(tbl regclass, key name, chunks int) returns setof text language sql as $$
    select query from unnest(pmpp.by_key(tbl, key, '{chunk}', chunks)) with ordinality q(query, n) order by n $$;
create domain keys.short as varchar(3) collate "C";
create type keys."mood's" as enum ('sad', 'ok', 'happy');
create type keys.pair as (a int, b text);
create table keys.t ("the Key" int, d date, s keys.short, m keys."mood's", p keys.pair, c char(5), bits bit(4), n numeric(4,1),
    f float8, arr int[], span interval, r int4range, raw bytea, constant int, nothing int, j json, js json[], pt point) with (autovacuum_enabled = off);
select pg_temp.pieces('keys.t', 'the Key', 4);
insert into keys.t select i, date '2024-01-01' + i, 'k' || i, (enum_range(null::keys."mood's"))[i % 3 + 1],
    case when i < 40 then row(null, null)::keys.pair when i < 90 then row(i, 'it''s')::keys.pair end, 'c' || i, i::bit(4), i / 10.0, case when i > 50 then 'NaN' else i / 3.0::float8 end,
    array[i, null], i * interval '-1 hour', int4range(0, i), decode(to_hex(100 + i), 'hex'), 7, null from generate_series(1, 99) i;
-- without statistics: from the values
select pg_temp.pieces('keys.t', 'the Key', 4);
set datestyle = 'SQL, DMY';
set intervalstyle = 'sql_standard';
set extra_float_digits = -5;
select pg_temp.pieces('keys.t', k, 2) from unnest('{d,s,m,p,c,bits,n,f,arr,span,r,raw,constant,nothing}'::name[]) k;
reset datestyle; reset intervalstyle; reset extra_float_digits;
-- with statistics: rows of each chunk
analyze keys.t;
select k, array(select rows from pmpp.distribute(null::bigint, 'loopback', pmpp.by_key('keys.t', k, 'select count(*) from keys.t where {chunk}', 3), num_workers => 2) rows order by rows)
  from unnest('{the Key,d,s,m,p,c,bits,n,f,arr,span,r,raw,constant,nothing}'::name[]) k;
-- frequent values and many nulls weigh as much as they are
create table keys.skewed (k int) with (autovacuum_enabled = off);
insert into keys.skewed select case when i <= 300 then null when i <= 600 then 5 else i end from generate_series(1, 1000) i;
select pg_temp.pieces('keys.skewed', 'k', 3);
analyze keys.skewed;
select pg_temp.pieces('keys.skewed', 'k', 3);
select sum(n) from pmpp.distribute(null::bigint, 'loopback', pmpp.by_key('keys.skewed', 'k', 'select count(*) from keys.skewed where {chunk}', 5), num_workers => 2) n;
-- statistics of the table with its children, a view, a foreign table, an extension's type elsewhere
create table keys.parent (k int) partition by range (k);
create table keys.child partition of keys.parent for values from (0) to (100);
insert into keys.parent select generate_series(0, 99);
select pg_temp.pieces('keys.parent', 'k', 2);
analyze keys.parent;
insert into keys.child select 99 from generate_series(1, 1000);
select pg_temp.pieces('keys.parent', 'k', 2);
create view keys.seen as select * from keys.t where "the Key" > 50;
select pg_temp.pieces('keys.seen', 'the Key', 2);
create foreign table keys.far (k int) server loopback options (schema_name 'keys', table_name 'child');
select pg_temp.pieces('keys.far', 'k', 2);
create schema "other's";
create extension citext schema "other's";
create table keys.ci as select (case i % 2 when 0 then 'A' else 'a' end || i)::"other's".citext as k from generate_series(1, 99) i;
select pg_temp.pieces('keys.ci', 'k', 2);
-- ---- errors ----
select pmpp.by_key(null, 'k', '{chunk}');
select pmpp.by_key('keys.ci', null, '{chunk}');
select pmpp.by_key('keys.ci', 'k', null);
select pmpp.by_key('keys.ci', 'k', 'where {chunk', 2);
select pmpp.by_key('keys.ci', 'k', '{chunk}', -1);
select pmpp.by_key('keys.ci', 'K', '{chunk}');
select pmpp.by_key('keys.ci', 'ctid', '{chunk}');
select pmpp.by_key('keys.t', 'j', '{chunk}');
select pmpp.by_key('keys.t', 'js', '{chunk}');
select pmpp.by_key('pg_class_oid_index', 'oid', '{chunk}');
create temporary table mine (k int);
select pmpp.by_key('mine', 'k', '{chunk}');
\set VERBOSITY default
\set SHOW_CONTEXT never
select pmpp.by_key('keys.t', 'pt', '{chunk}');
-- the column must be readable
create role reader;
grant pmpp to reader;
grant usage on schema keys to reader;
set role reader;
select pmpp.by_key('keys.t', 'd', '{chunk}');
reset role;
drop schema keys, "other's" cascade;
drop owned by reader;
drop role reader;
