-- The examples of the specification, as they stand there.
select format('host=%s port=%s user=%s dbname=%s', split_part(current_setting('unix_socket_directories'), ',', 1),
              current_setting('port'), current_user, current_database()) as mydb \gset

-- system information
create schema info;
create table info.foo as select from generate_series(1, 10);
create table info.a();
CREATE TEMPORARY TABLE table_counts(table_name text, row_count bigint);
SELECT * FROM pmpp.distribute(null::table_counts, :'mydb',
    array ( SELECT format('SELECT %L, count(*) from info.%I',t.table_name,t.table_name)
              FROM information_schema.tables t
             WHERE t.table_schema = 'info' ))
 ORDER BY row_count DESC;

-- two-stage aggregation of partitions
CREATE TABLE user_views(user_name text, view_count bigint);
CREATE TABLE user_views_december as select 'user ' || i % 3 as user_name, 1 as view_count from generate_series(1, 30) i;
CREATE TABLE user_views_november as select 'user ' || i % 2 as user_name, 1 as view_count from generate_series(1, 30) i;
SELECT  user_name, sum(view_count) as total_view_count
  FROM  pmpp.distribute(null::user_views, :'mydb', array[
            'SELECT user_name, sum(view_count) FROM user_views_december GROUP BY 1',
            'SELECT user_name, sum(view_count) FROM user_views_november GROUP BY 1' ])
 GROUP BY 1 ORDER BY 2 DESC, 1;

-- parallel index building
CREATE TABLE parallel_index_test( b integer, c integer, d integer);
SELECT * FROM pmpp.meta(:'mydb',
    array( SELECT format('create index on %s(%s)',c.table_name,c.column_name)
             FROM information_schema.columns c
            WHERE c.table_name = 'parallel_index_test' AND c.table_schema = 'public'))
 ORDER BY 1;
select indexname from pg_indexes where tablename = 'parallel_index_test' order by 1;

-- hiding passwords
CREATE TEMPORARY TABLE my_result(x integer);
SELECT * FROM pmpp.distribute(null::my_result,'loopback',array['SELECT 1','SELECT 2']) ORDER BY 1;

-- distribute() - single database
CREATE TEMPORARY TABLE x(y integer);
SELECT * FROM pmpp.distribute(null::x, :'mydb', array['select 1','select 2','select 3 as z']) ORDER BY 1;

-- query_manifest[]
CREATE TEMPORARY TABLE xy(x integer, y integer);
SELECT * FROM pmpp.distribute( null::xy,
    array[ row(:'mydb', array['SELECT 1,2','SELECT 3,4'], null, 4, null, null)::pmpp.query_manifest,
           row('loopback', array['SELECT 5,6','SELECT 7,8'], 1.5, null, null, null)::pmpp.query_manifest,
           row(:'mydb', array['SELECT 9,10'], null, null, null, null)::pmpp.query_manifest ])
 ORDER BY x;

-- jsonb and json
SELECT * FROM pmpp.distribute( null::xy,
    '[{"connection": "loopback", "queries": ["SELECT 1,2","SELECT 3,4"], "num_workers": 4},'
    ' {"connection": "loopback", "queries": ["SELECT 5,6", "SELECT 7,8"], "multiplier": 1.5},'
    ' {"connection": "loopback", "query": "SELECT 9,10"}]'::jsonb)
 ORDER by x;
SELECT * FROM pmpp.distribute( null::xy,
    '[{"connection": "loopback", "queries": ["SELECT 1,2","SELECT 3,4"], "num_workers": 4}]'::json)
 ORDER by x;

-- SETOF RECORD
SELECT * FROM pmpp.distribute(
    '[{"connection": "loopback", "queries": ["SELECT 1,2","SELECT 3,4"], "num_workers": 4},'
    ' {"connection": "loopback", "query": "SELECT 9,10"}]'::jsonb ) AS xy(x integer, y integer)
 ORDER by x;
SELECT * FROM pmpp.distribute(
    '[{"connection": "loopback", "query": "SELECT 9,10"}]'::json ) AS xy(x integer, y integer);
SELECT * FROM pmpp.distribute(
    array[ row('loopback', array['SELECT 1,2','SELECT 3,4'], null, 4, null, null)::pmpp.query_manifest ]) AS xy(x integer, y integer)
 ORDER by x;

-- broadcast()
SELECT * FROM pmpp.broadcast(null::x, array['loopback', :'mydb'], 'select 1');

-- num_cpus()
SELECT pmpp.num_cpus() > 0;
