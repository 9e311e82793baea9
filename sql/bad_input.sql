-- Each of these is one error that names the item and the field.
\set VERBOSITY terse
create function pg_temp.item(connection text default 'loopback', queries text[] default '{select 1}', cpu_multiplier float default null,
    num_workers int default null, setup_commands text[] default null, result_format text default null)
returns pmpp.query_manifest language sql as $$ select row($1, $2, $3, $4, $5, $6)::pmpp.query_manifest $$;
create function pg_temp.run(bad pmpp.query_manifest) returns int language sql as $$
    select * from pmpp.distribute(null::int, array[pg_temp.item(), bad]) $$;
select pg_temp.run(null);
select pg_temp.run(pg_temp.item(connection => null));
select pg_temp.run(pg_temp.item(connection => ' '));
select pg_temp.run(pg_temp.item(connection => 'no_such_server'));
select pg_temp.run(pg_temp.item(connection => 'dbname=x password=secret nonsense'));
select pg_temp.run(pg_temp.item(connection => 'postgresql://user:secret@localhost:port/x'));
select pg_temp.run(pg_temp.item(queries => null));
select pg_temp.run(pg_temp.item(queries => '{}'));
select pg_temp.run(pg_temp.item(queries => '{select 1,NULL}'));
select pg_temp.run(pg_temp.item(queries => '{select 1,"  "}'));
select pg_temp.run(pg_temp.item(queries => '{;}'));
select pg_temp.run(pg_temp.item(queries => '{{select 1},{select 2}}'));
select pg_temp.run(pg_temp.item(cpu_multiplier => 0));
select pg_temp.run(pg_temp.item(cpu_multiplier => -1.5));
select pg_temp.run(pg_temp.item(cpu_multiplier => 'NaN'));
select pg_temp.run(pg_temp.item(cpu_multiplier => 'infinity'));
select pg_temp.run(pg_temp.item(num_workers => 0));
select pg_temp.run(pg_temp.item(num_workers => -3));
select pg_temp.run(pg_temp.item(setup_commands => '{set a.b to 1,NULL}'));
select pg_temp.run(pg_temp.item(setup_commands => '{{a},{b}}'));
select pg_temp.run(pg_temp.item(result_format => 'xml'));
select pg_temp.run(pg_temp.item(result_format => ''));
select * from pmpp.distribute(null::int, null::pmpp.query_manifest[]);
select * from pmpp.distribute(null::int, '{}'::pmpp.query_manifest[]);
select * from pmpp.distribute(null::int, array[[pg_temp.item()], [pg_temp.item()]]);
select * from pmpp.distribute(null::int, '[]'::jsonb);
select * from pmpp.distribute(null::int, null::jsonb);
select * from pmpp.distribute(null::int, '{}'::json);
select * from pmpp.distribute('[{"connection": "loopback"}]'::jsonb) as (i int);
select * from pmpp.meta(null, array['select 1']);
select * from pmpp.distribute(null::int, 'loopback', null);

select * from pmpp.broadcast(null::int, null, 'select 1');
select * from pmpp.broadcast(null::int, '{}', 'select 1');
select * from pmpp.broadcast(null::int, '{loopback,NULL}', 'select 1');
select * from pmpp.broadcast(null::int, '{{loopback},{loopback}}', 'select 1');
select * from pmpp.broadcast(null::int, '{loopback,loopback}', 'select 1', '{text}');
select * from pmpp.broadcast(null::int, '{loopback,loopback}', 'select 1', '{text,xml}');
select * from pmpp.broadcast(null::int, '{loopback,loopback}', 'select 1', '{text,NULL}');
select * from pmpp.broadcast(null::int, '{loopback}', null);
select * from pmpp.broadcast(null::int, '{loopback}', '');
