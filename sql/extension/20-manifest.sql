-- Manifests in JSON. Only these functions read them.
--
-- Manifests contain passwords, and auto_explain logs the parameters of statements: of those in
-- functions in SQL, and of FOR loops over a query. So no function here is in SQL or has such a loop.
-- auto_explain does not log the parameters of other statements in PL/pgSQL.

create function pmpp.jsonb_array_to_text_array(jsonb jsonb) returns text[]
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    if jsonb_typeof($1) <> 'array' then
        raise invalid_parameter_value using
            message = format('a JSON array is expected, not %s', jsonb_typeof($1));
    end if;
    return array(
        select e.value from jsonb_array_elements_text($1) with ordinality e(value, n) order by e.n
    );
end
$$;
comment on function pmpp.jsonb_array_to_text_array(jsonb) is
    'convert a JSON array to an array of text';

-- PostgreSQL's own errors would not name the item, and a function that is parallel safe must not
-- catch them.
create function pmpp._check_item(item jsonb, place text) returns void
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    fields constant jsonb := '{"connection": "string", "queries": "array", "query": "string",
        "cpu_multiplier": "number", "multiplier": "number", "num_workers": "number",
        "setup_commands": "array", "statement_timeout": "string", "result_format": "string"}';
    unknown_keys text;
    problem text;
begin
    if jsonb_typeof(item) is distinct from 'object' then
        raise invalid_parameter_value using
            message = format('%s must be a JSON object, not %s', place, coalesce(jsonb_typeof(item), 'null'));
    end if;
    select string_agg(k, ', ' order by k) into unknown_keys from jsonb_object_keys(item) k where not fields ? k;
    if unknown_keys is not null then
        raise warning '%: unknown keys are ignored: %', place, unknown_keys;
    end if;

    select format('%s: %s must be a JSON %s, not %s', place, v.name, v.wanted, jsonb_typeof(v.value))
      into problem
      from (
        select f.name, f.wanted, item -> f.name
          from jsonb_each_text(fields) f(name, wanted)
         where f.name <> 'statement_timeout' or jsonb_typeof(item -> f.name) <> 'number'
        union all
        select format('%s[%s]', f.name, e.n), 'string', e.value
          from jsonb_each_text(fields) f(name, wanted),
               jsonb_array_elements(case jsonb_typeof(item -> f.name) when 'array' then item -> f.name end)
                   with ordinality e(value, n)
      ) v(name, wanted, value)
     where jsonb_typeof(v.value) not in (v.wanted, 'null')
     limit 1;
    if problem is null then
        select min(case
                    when abs(v.number) > 1.7976931348623157e308 or v.number <> 0 and abs(v.number) < 5e-324
                    then format('%s: %s is out of range: %s', place, f.name, left(item ->> f.name, 20))
                    when f.name = 'num_workers' and (abs(v.number) > 2147483647 or v.number <> trunc(v.number))
                    then format('%s: num_workers must be an integer, not %s', place, v.number::double precision)
                   end)
          into problem
          from unnest(array['cpu_multiplier', 'multiplier', 'num_workers']) f(name),
               lateral (select (item ->> f.name)::numeric) v(number);
    end if;
    if problem is not null then
        raise invalid_parameter_value using message = problem;
    end if;
end
$$;
comment on function pmpp._check_item(jsonb, text) is
    'internal: raise an error if an item in JSON cannot be read, and a warning if it has unknown keys';

create function pmpp._to_query_manifest(item jsonb, place text) returns pmpp.query_manifest
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    result pmpp.query_manifest;
begin
    perform pmpp._check_item(item, place);
    result.connection := item ->> 'connection';
    if item ->> 'queries' is not null then
        result.queries := pmpp.jsonb_array_to_text_array(item -> 'queries');
    end if;
    if item ->> 'query' is not null then
        result.queries := array_append(result.queries, item ->> 'query');
    end if;
    result.cpu_multiplier := coalesce(item ->> 'cpu_multiplier', item ->> 'multiplier')::double precision;
    result.num_workers := (item ->> 'num_workers')::numeric;
    if item ->> 'setup_commands' is not null then
        result.setup_commands := pmpp.jsonb_array_to_text_array(item -> 'setup_commands');
    end if;
    if item ->> 'statement_timeout' is not null then
        result.setup_commands := array_append(
            result.setup_commands, format('set statement_timeout to %L', item ->> 'statement_timeout'));
    end if;
    result.result_format := item ->> 'result_format';
    return result;
end
$$;
comment on function pmpp._to_query_manifest(jsonb, text) is
    'internal: read an item in JSON; messages name it by its place';

create function pmpp.to_query_manifest(item jsonb) returns pmpp.query_manifest
language plpgsql immutable strict parallel safe security invoker
as $$
begin
    return pmpp._to_query_manifest(item, 'the item');
end
$$;
comment on function pmpp.to_query_manifest(jsonb) is
    'read an item of a manifest in JSON; the cast from jsonb to query_manifest';

create function pmpp.to_query_manifest_array(manifest jsonb) returns pmpp.query_manifest[]
language plpgsql immutable strict parallel safe security invoker
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    if jsonb_typeof(manifest) <> 'array' then
        raise invalid_parameter_value using
            message = format('the manifest must be a JSON array of objects, not %s', jsonb_typeof(manifest));
    end if;
    return array(
        select pmpp._to_query_manifest(e.item, format('item %s', e.n))
          from jsonb_array_elements(manifest) with ordinality e(item, n)
         order by e.n
    );
end
$$;
comment on function pmpp.to_query_manifest_array(jsonb) is
    'read a manifest in JSON; the cast from jsonb to query_manifest[]';

create function pmpp.to_query_manifest_array(manifest json) returns pmpp.query_manifest[]
language plpgsql immutable strict parallel safe security invoker
as $$
begin
    return pmpp.to_query_manifest_array(manifest::pg_catalog.jsonb);
end
$$;
comment on function pmpp.to_query_manifest_array(json) is
    'read a manifest in JSON; the cast from json to query_manifest[]';

create function pmpp.manifest_array(query_manifest jsonb) returns pmpp.query_manifest[]
language plpgsql immutable strict parallel safe security invoker
as $$
begin
    return pmpp.to_query_manifest_array(query_manifest);
end
$$;
comment on function pmpp.manifest_array(jsonb) is 'the items of a manifest in JSON as an array';

create function pmpp.manifest_set(query_manifest jsonb) returns setof pmpp.query_manifest
language plpgsql immutable strict parallel safe security invoker
as $$
declare
    item pmpp.query_manifest;
begin
    foreach item in array pmpp.to_query_manifest_array(query_manifest) loop
        return next item;
    end loop;
end
$$;
comment on function pmpp.manifest_set(jsonb) is 'the items of a manifest in JSON as a set';

create cast (jsonb as pmpp.query_manifest)
    with function pmpp.to_query_manifest(jsonb) as implicit;
comment on cast (jsonb as pmpp.query_manifest) is 'an item of a manifest';

create cast (jsonb as pmpp.query_manifest[])
    with function pmpp.to_query_manifest_array(jsonb) as implicit;
comment on cast (jsonb as pmpp.query_manifest[]) is 'a manifest';

create cast (json as pmpp.query_manifest[])
    with function pmpp.to_query_manifest_array(json) as implicit;
comment on cast (json as pmpp.query_manifest[]) is 'a manifest';
