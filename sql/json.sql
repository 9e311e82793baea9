-- Manifests in JSON, and the functions behind the casts.
\set VERBOSITY terse
select pmpp.jsonb_array_to_text_array('["a", "b c", null, 1, true, "\u00e9\n"]');
select pmpp.jsonb_array_to_text_array('[]'), pmpp.jsonb_array_to_text_array(null);
select pmpp.jsonb_array_to_text_array('{"a": 1}');

select * from pmpp.to_query_manifest('{"connection": "c", "query": "q", "num_workers": 3}');
select * from pmpp.to_query_manifest('{"connection": "c", "queries": ["q1", "q2"], "query": "q3", "cpu_multiplier": 0.5,
    "setup_commands": ["s1"], "statement_timeout": "1min", "result_format": "binary"}');
select * from pmpp.to_query_manifest('{"connection": "c", "queries": null, "multiplier": 2, "statement_timeout": 500}');
select * from pmpp.manifest_set('[{"connection": "a", "query": "q"}, {"connection": "b", "query": "q"}]');
select pmpp.manifest_array('[{"connection": "a", "query": "q"}]');
select pmpp.to_query_manifest_array('[{"connection": "a", "query": "q"}]'::jsonb)
     = pmpp.to_query_manifest_array('[{"connection": "a", "query": "q"}]'::json) as same;
select pmpp.to_query_manifest_array(null::jsonb) is null as is_null;

-- the casts are implicit
create function takes_item(item pmpp.query_manifest) returns text language sql as $$ select item.connection $$;
create function takes_manifest(items pmpp.query_manifest[]) returns text language sql as $$ select items[1].connection $$;
select takes_item('{"connection": "a"}'::jsonb), takes_manifest('[{"connection": "b"}]'::jsonb), takes_manifest('[{"connection": "c"}]'::json);
drop function takes_item, takes_manifest;

-- unknown keys are named
select * from pmpp.to_query_manifest('{"connection": "c", "query": "q", "workers": 3, "Queries": []}');

-- what is wrong is named
select pmpp.to_query_manifest('[]');
select pmpp.to_query_manifest_array('{"connection": "c"}'::jsonb);
select pmpp.to_query_manifest_array('"x"'::json);
select pmpp.to_query_manifest_array('[{"connection": "c"}, 7]'::jsonb);
select pmpp.to_query_manifest_array('[{"connection": "c"}, null]'::jsonb);
select pmpp.to_query_manifest_array('[{"connection": 1}]'::jsonb);
select pmpp.to_query_manifest_array('[{"queries": "select 1"}]'::jsonb);
select pmpp.to_query_manifest_array('[{"queries": ["select 1", 2]}]'::jsonb);
select pmpp.to_query_manifest_array('[{"query": ["select 1"]}]'::jsonb);
select pmpp.to_query_manifest_array('[{"num_workers": "3"}]'::jsonb);
select pmpp.to_query_manifest_array('[{"num_workers": 1.5}]'::jsonb);
select pmpp.to_query_manifest_array('[{"num_workers": 1e10}]'::jsonb);
select pmpp.to_query_manifest_array('[{"cpu_multiplier": "2"}]'::jsonb);
select pmpp.to_query_manifest_array('[{"multiplier": 1e400}]'::jsonb);
select pmpp.to_query_manifest_array('[{"setup_commands": {"a": 1}}]'::jsonb);
select pmpp.to_query_manifest_array('[{"statement_timeout": true}]'::jsonb);
select pmpp.to_query_manifest_array('[{"result_format": 1}]'::jsonb);
