-- pmpp.on_error = 'continue': a query that fails costs a warning, and nothing else.
\set SHOW_CONTEXT never
set pmpp.on_error = 'continue';
select * from pmpp.distribute(null::int, 'loopback', array['select 1', 'select 1/0', 'select 2'], num_workers => 1) i order by i;
-- none of the rows of a query that fails
select * from pmpp.distribute(null::int, 'loopback', array['select 1', 'select 2; select 3; select x', 'select 4; select 5'], num_workers => 1) i order by i;
select * from pmpp.distribute(null::int, 'loopback', array['select 1', 'select 1 / (3 - i) from generate_series(1, 3) i'], num_workers => 1, result_format => 'binary') i;
-- in the form without a row type
select * from pmpp.distribute('[{"connection": "loopback", "num_workers": 1, "queries": ["select 1", "select x", "select 2"]}]'::jsonb) as (i int) order by i;
-- a transaction that setup commands have begun
select * from pmpp.distribute(null::int, 'loopback', array['select 1', 'select x', 'select 2'], num_workers => 1, setup_commands => array['begin']) i order by i;
-- setup commands that fail cost their item
select * from pmpp.distribute(null::int, '[{"connection": "loopback", "query": "select 1", "setup_commands": ["select 1/0"]},
    {"connection": "loopback", "queries": ["select 2", "select 3"], "num_workers": 1}]'::jsonb) i order by i;
-- so do connections that cannot be made
\set VERBOSITY terse
select * from pmpp.broadcast(null::int, array['loopback', 'host=/nowhere dbname=x'], 'select 1');
\set VERBOSITY default
-- COPY, and results that are too large
set pmpp.max_result_size = '1MB';
select * from pmpp.distribute(null::int, 'loopback', array['select 1', 'copy (select 1) to stdout', 'select generate_series(1, 1000000)', 'select 2'], num_workers => 1) i order by i;
reset pmpp.max_result_size;
-- a value that does not fit ends the call
select * from pmpp.distribute(null::int, 'loopback', array['select 1', $$select 'x'$$], num_workers => 1);
-- if all queries fail, so does the call
select * from pmpp.distribute(null::int, 'loopback', array['select 1/0', 'select x'], num_workers => 1);
select * from pmpp.meta('loopback', array['nonsense']);
-- in any case, and no other words
set pmpp.on_error = 'CONTINUE';
select count(*) from pmpp.distribute(null::int, 'loopback', array['select 1', 'select x'], num_workers => 1);
set pmpp.on_error = 'ignore';
select * from pmpp.distribute(null::int, 'loopback', array['select 1']);
set pmpp.on_error = 'stop';
select * from pmpp.distribute(null::int, 'loopback', array['select 1', 'select 1/0'], num_workers => 1);
reset pmpp.on_error;
select * from pmpp.distribute(null::int, 'loopback', array['select 1', 'select 1/0'], num_workers => 1);
