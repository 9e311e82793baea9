-- Row types of every kind: each query returns one row of that shape.
\set VERBOSITY terse
create schema types;
create type types.mood as enum ('sad', 'happy');
create type types.pair as (a integer, b text);
create domain types.positive as integer check (value > 0);
create domain types.ordered as types.pair check ((value).a > 0);
create domain types.numbers as integer[] check (value[1] > 0);
create table types.t (
    id integer, gone text, "a ""quoted"" name" text, flag boolean, raw bytea, list integer[], words varchar(3)[],
    p types.pair, ps types.pair[], m types.mood, r int4range, j json, jb jsonb, pos types.positive, nums types.numbers,
    v varchar(3), n numeric(5,2), c char(4), "char" "char", ts timestamp(0)
);
alter table types.t drop column gone;
create view types.v as select id, v from types.t;

insert into types.t values
    (1, E'tab\t"quote" \\ and , ( )', false, '\x00ff', '{1,NULL,3}', '{abc,"",NULL}', '(1,"x, y")', '{"(1,a)","(2,\"\")",NULL}',
     'happy', '[1,5)', '{"a": "b\"c"}', '{"x": [1]}', 7, '{1,2}', 'abc', 1.005, 'ab', 'x', '2020-01-01 00:00:00.6'),
    (2, '', true, '', '{}', '{}', null, null, null, 'empty', 'null', 'null', null, null, '', null, '', '', 'infinity');
select count(*) from types.t t
  join pmpp.distribute(null::types.t, 'loopback', array['select * from types.t']) d on t::text = d::text;
select count(*) from types.t t
  join pmpp.distribute(null::types.t, 'loopback', array['select * from types.t'], result_format => 'binary') d on t::text = d::text;

select * from pmpp.distribute(null::types.v, 'loopback', array['select id, v from types.t']) order by id;
select * from pmpp.distribute(null::types.pair, 'loopback', array['select 1, null']);
select * from pmpp.distribute(null::types.pair, 'loopback', array['select null, null']);
select * from pmpp.distribute(null::types.ordered, 'loopback', array['select 1, ''x''']);
select * from pmpp.distribute(null::types.ordered, 'loopback', array['select -1, ''x''']);

-- scalars
select * from pmpp.distribute(null::int, 'loopback', array['select 1', 'select null']) n order by n;
select * from pmpp.distribute(null::types.positive, 'loopback', array['select 1']);
select * from pmpp.distribute(null::types.positive, 'loopback', array['select 0']);
select * from pmpp.distribute(null::int[], 'loopback', array['select array[1,2]']);
select * from pmpp.distribute(null::types.mood, 'loopback', array['select ''sad''']);
select * from pmpp.distribute(null::boolean, 'loopback', array['select false']);

-- type modifiers do what they do in an INSERT
create table types.limits (v varchar(3), c char(2), n numeric(4,1), b bit(3), vb bit varying(3), ts timestamp(0), iv interval day to second(1));
select * from pmpp.distribute(null::types.limits, 'loopback', array[
    $$select 'abc  ', 'd  ', 1.25, b'101', b'1', timestamp '2020-01-01 00:00:00.6', interval '1 day 00:00:01.26'$$,
    $$select null, '', 'NaN', null, '', 'infinity', null$$]) order by c desc;
select * from pmpp.distribute(null::types.limits, 'loopback', array['select ''abcd'', null, null, null, null, null, null']);
select * from pmpp.distribute(null::types.limits, 'loopback', array['select null, ''abc'', null, null, null, null, null']);
select * from pmpp.distribute(null::types.limits, 'loopback', array['select null, null, 1000, null, null, null, null']);
select * from pmpp.distribute(null::types.limits, 'loopback', array['select null, null, null, b''1'', null, null, null']);
select * from pmpp.distribute(null::types.limits, 'loopback', array['select null, null, null, null, b''1010'', null, null']);
alter table types.limits add words varchar(3)[], add boxes box;
select words, boxes from pmpp.distribute(null::types.limits, 'loopback',
    array['select null, null, null, null, null, null, null, array[''abc''], box ''(1,2),(3,4)''']);
select words from pmpp.distribute(null::types.limits, 'loopback',
    array['select null, null, null, null, null, null, null, array[''abcd''], null']);
select * from pmpp.distribute('[{"connection": "loopback", "query": "select ''abcd''"}]'::jsonb) as (v varchar(3));

-- the form with a column definition list
select * from pmpp.distribute('[{"connection": "loopback", "query": "select flag, raw, list, p, nums from types.t order by id", "result_format": "text"}]'::jsonb)
    as (flag boolean, raw bytea, list integer[], p types.pair, nums types.numbers);

-- only column order and types that can be converted matter
create temp table narrow (n numeric, t text);
select * from pmpp.distribute(null::narrow, 'loopback', array['select 1::int2 as t, 2 as n', 'select ''3'', current_date - current_date']) order by n;

-- what is no row type
select * from pmpp.distribute(row(1, 2), 'loopback', array['select 1, 2']) as (a int, b int);
create table types.empty ();
select * from pmpp.distribute(null::types.empty, 'loopback', array['select']);
select * from pmpp.distribute(null::pg_attribute, 'loopback', array['select * from pg_attribute']);
drop schema types cascade;
