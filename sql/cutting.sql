-- by_partition and by_ctid: one query for each piece of a table.
\set VERBOSITY terse
create schema cut;
create function pg_temp.pieces(queries text[]) returns setof text language sql as $$
    select query from unnest(queries) with ordinality q(query, n) order by n $$;
-- ---- by_partition: at all levels, empty ones, the default one, foreign ones, odd names ----
create table cut.sales (region text, d date, n int) partition by list (region);
select pmpp.by_partition('cut.sales', 'table {partition}');
create table cut."North {partition}" partition of cut.sales for values in ('n');
create table cut."o'brien" (n int, d date, region text);
alter table cut.sales attach partition cut."o'brien" for values in ('o');
create table cut.rest partition of cut.sales default partition by range (d);
create table cut.new partition of cut.rest for values from ('2024-01-01') to (maxvalue);
create table cut.empty partition of cut.rest default;
create foreign table cut.far partition of cut.sales for values in ('f') server loopback options (schema_name 'cut', table_name 'afar');
create table cut.afar (region text, d date, n int);
select pg_temp.pieces(pmpp.by_partition('cut.sales', 'table {partition} /* {partition} */')) as query;
insert into cut.sales select r, d, 1 from unnest('{n,o,f,x}'::text[]) r, unnest('{2024-06-01}'::date[]) d;
create table cut.counts (region text, n bigint);
select * from pmpp.distribute(null::cut.counts, 'loopback', pmpp.by_partition('cut.sales',
    'select region, count(*) from {partition} group by region'), num_workers => 2) order by region;
-- an index is cut too
create table cut.p (i int) partition by range (i);
create table cut.p1 partition of cut.p for values from (1) to (2);
create index p_i on cut.p (i);
select * from pmpp.meta('loopback', pmpp.by_partition('cut.p_i', 'reindex index {partition}'), num_workers => 2);
-- inheritance: the parent has rows of its own, a child of two parents is there once
create table cut.a (i int);
create table cut.b (i int);
create table cut.ab () inherits (cut.a, cut.b);
create table cut.top () inherits (cut.ab, cut.a);
insert into cut.a values (1);
insert into cut.ab values (2);
insert into cut.top values (3);
select pg_temp.pieces(pmpp.by_partition('cut.a', 'select i from {partition}')) as query;
select i from pmpp.distribute(null::int, 'loopback', pmpp.by_partition('cut.a', 'select i from {partition}'), num_workers => 2) i order by i;
select pmpp.by_partition('cut.top', 'select i from {partition}');
select pmpp.by_partition('pg_class', 'table {partition}');
-- ---- by_ctid ----
select pmpp.by_ctid('cut.b', 'select * from cut.b where {chunk}', 3);
create table cut.blocks (i int, filler text default repeat('x', 1500)) with (autovacuum_enabled = off);
alter table cut.blocks alter filler set storage plain;
insert into cut.blocks select generate_series(1, 50);
-- how many rows fit a block is not the same everywhere
select regexp_replace(pg_temp.pieces(pmpp.by_ctid('cut.blocks', 'where {chunk} and not {chunk}', 3)), '[1-9][0-9]*,0', 'N,0', 'g') as query;
select cardinality(pmpp.by_ctid('cut.blocks', '{chunk}', 1000)) = pg_relation_size('cut.blocks') / current_setting('block_size')::int as by_block, cardinality(pmpp.by_ctid('cut.blocks', '{chunk}', 1)), cardinality(pmpp.by_ctid('cut.blocks', '{chunk}', null)) <= 10 as by_default;
select sum(i) from pmpp.distribute(null::int, 'loopback', pmpp.by_ctid('cut.blocks', 'select i from cut.blocks where {chunk}', 4), num_workers => 2) i;
explain (costs off) select i from cut.blocks where (ctid >= '(3,0)' and ctid < '(6,0)');
-- ---- errors ----
create view cut.v as select 1;
create temporary table t (i int);
create temporary table u () inherits (cut.b);
create sequence cut.s;
select pmpp.by_partition(null, 'table {partition}');
select pmpp.by_partition('cut.p', null);
select pmpp.by_partition('cut.p', 'table {Partition}');
select pmpp.by_partition('cut.v', 'table {partition}');
select pmpp.by_partition('cut.s', 'table {partition}');
select pmpp.by_partition('t', 'table {partition}');
select pmpp.by_partition('cut.b', 'table {partition}');
select pmpp.by_partition(4294967295::oid, 'table {partition}');
select pmpp.by_partition('cut.missing', 'table {partition}');
select pmpp.by_ctid(null, '{chunk}');
select pmpp.by_ctid('cut.blocks', null);
select pmpp.by_ctid('cut.blocks', 'select 1');
select pmpp.by_ctid('cut.blocks', '{chunk}', 0);
select pmpp.by_ctid('cut.blocks', 'select 1 where {chunk:}');
select pmpp.by_ctid('cut.sales', '{chunk}');
select pmpp.by_ctid('cut.far', '{chunk}');
select pmpp.by_ctid('t', '{chunk}');
\set VERBOSITY default
select pmpp.by_ctid('cut.v', '{chunk}');
select pmpp.by_partition('cut.p', 'select 1');
\set SHOW_CONTEXT never
select pmpp.by_ctid('cut.blocks', 'select 1');
select pmpp.by_ctid('cut.blocks', 'select 1 from cut.b "Weird One" where {chunk:Weird One}');
set client_min_messages = warning;
drop schema cut cascade;
