-- Rows with the query that each is from.
\set VERBOSITY terse
create type pair as (a int, b varchar(3));
create domain good_pair as pair check ((value).a > 0);
create domain good as int check (value > 0);
create type figure as (name text, outline box);
\set manifest '''[{"connection": "loopback", "queries": ["select 1, 2", "select 3, null"]}, {"connection": "loopback", "query": "select 5, 6", "result_format": "binary"}]'''
-- the three forms of a manifest
select item, connection, query_number, (result).* from pmpp.distribute_tagged(null::pair, :manifest::jsonb) order by 1, 3;
select connection, result from pmpp.distribute_tagged(null::pair, :manifest::json) order by item, query_number;
select item, query_number, (result).b from pmpp.distribute_tagged(null::pair, pmpp.to_query_manifest_array(:manifest::jsonb)) order by 1, 2;
select item, query_number, result from pmpp.distribute_tagged(null::good_pair, :manifest::jsonb) order by 1, 2;
-- scalars, domains, and a type whose arrays are not separated by commas
select * from pmpp.broadcast_tagged(null::int, array['loopback', 'loopback'], 'select 7') order by 1;
select * from pmpp.broadcast_tagged(null::good, array['loopback'], 'select 7', array['text']);
select item, query_number, (result).* from pmpp.broadcast_tagged(null::figure, array['loopback'], $$select 'x', '(1,1),(0,0)'$$);
select item, result from pmpp.broadcast_tagged(null::box, array['loopback'], $$select '(1,1),(0,0)'$$);
-- commands
select item, query_number, (result).* from pmpp.broadcast_tagged(null::pmpp.command_with_result, array['loopback'], 'set a.b to 1');
-- many rows
select query_number, count(*), sum(result) from pmpp.distribute_tagged(null::int, '[{"connection": "loopback",
    "queries": ["select generate_series(1, 2000)", "select generate_series(1, 3000)"]}]'::jsonb) group by 1 order by 1;
-- no rows
select * from pmpp.broadcast_tagged(null::int, array['loopback'], 'select 1 where false');
-- errors
select * from pmpp.broadcast_tagged(null::good, array['loopback'], 'select 0');
select * from pmpp.broadcast_tagged(null::good_pair, array['loopback'], 'select 0, 1');
select * from pmpp.broadcast_tagged(null::pair, array['loopback'], 'select 1, ''long''');
select * from pmpp.broadcast_tagged(null::pair, array['loopback'], 'select 1');
select * from pmpp.broadcast_tagged(null::record, array['loopback'], 'select 1');
select * from pmpp.broadcast_tagged(null::int, array[]::text[], 'select 1');
select * from pmpp.broadcast_tagged(null::int, array['loopback'], 'select 1/0');
select * from pmpp.distribute_tagged(null::int, null::jsonb);
drop domain good_pair, good;
drop type pair, figure;
