-- result_format: the simple query protocol, text, and binary.
\set VERBOSITY terse
create temp table t (i int, b bigint, s smallint, f float8, x text, v varchar(5), c char(3), o oid, flag bool, raw bytea, u uuid, j json, jb jsonb, n numeric, d date);
create function pg_temp.query() returns text language sql as $$
    select 'select -1, 9223372036854775807, (-32768)::int2, 1.5e300::float8, ''text'', ''vc''::varchar, ''c''::char(3), 4294967295::oid, true, ''\x00ff''::bytea,
            ''a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11''::uuid, ''{"a":1}''::json, ''[1, 2]''::jsonb'
$$;
create function pg_temp.run(query text, format text) returns setof t language sql as $$
    select * from pmpp.distribute(null::t, 'loopback', array[query], result_format => format) $$;
select * from pg_temp.run(pg_temp.query() || ', 1.50, date ''2020-02-29''', null)
union all select * from pg_temp.run(pg_temp.query() || ', 1.50, date ''2020-02-29''', 'text')
union all select * from pg_temp.run(pg_temp.query() || ', 1.50, date ''2020-02-29''', 'binary') \gx

-- all types here can be read in binary
select * from pmpp.distribute(null::bigint, 'loopback', array['select 9223372036854775807', 'select -1', 'select null'], result_format => 'binary') b order by b;
select * from pmpp.distribute(null::float8, 'loopback', array['select ''NaN''::float8', 'select ''-Infinity''::float8', 'select 0.1::float8', 'select 1e22::float8'], result_format => 'binary') f order by f;

-- in binary, types that differ are resolved as an assignment would
create domain whole as integer;
select * from pmpp.distribute(null::int, 'loopback', array['select 1.5::float8', 'select 2.5::numeric', 'select 7::bigint', 'select null::float8'], result_format => 'binary') i order by i;
select * from pmpp.distribute(null::whole, 'loopback', array['select 1.5::float8'], result_format => 'binary');
select * from pmpp.distribute(null::text, 'loopback', array['select 1.0::float8', 'select 1.0::float8'], result_format => 'binary');
select * from pmpp.distribute(null::date, 'loopback', array['select timestamp ''2020-02-29 23:00'''], result_format => 'binary');
select * from pmpp.distribute(null::int, 'loopback', array['select 3000000000'], result_format => 'binary');
-- in text they are read anew
select * from pmpp.distribute(null::int, 'loopback', array['select 1.5::float8'], result_format => 'text');

-- more than one statement goes only in the simple query protocol, and every result counts
select * from pmpp.distribute(null::int, 'loopback', array['select 1; select 2 union select 3']) i order by i;
select * from pmpp.distribute(null::int, 'loopback', array['select 1; select 2'], result_format => 'text');
drop domain whole;
