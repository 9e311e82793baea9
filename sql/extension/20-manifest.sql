-- Manifests in JSON. This is the only place that reads them. No function here is in SQL: auto_explain
-- logs the parameters of the statements of such a function, and manifests contain passwords. It also
-- logs those of a FOR loop over a query, but not those of PERFORM.

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

create function pmpp._check_json_type(value jsonb, wanted text, place text) returns void
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    if jsonb_typeof(value) not in (wanted, 'null') then
        raise invalid_parameter_value using
            message = format('%s must be a JSON %s, not %s', place, wanted, jsonb_typeof(value));
    end if;
end
$$;
comment on function pmpp._check_json_type(jsonb, text, text) is
    'internal: raise an error unless a JSON value is of a type, or null';

create function pmpp._item_statements(item jsonb, field text, place text) returns text[]
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    perform pmpp._check_json_type(item -> field, 'array', format('%s: %s', place, field));
    if jsonb_typeof(item -> field) = 'array' then
        perform pmpp._check_json_type(e.value, 'string', format('%s: %s[%s]', place, field, e.n))
           from jsonb_array_elements(item -> field) with ordinality e(value, n);
        return pmpp.jsonb_array_to_text_array(item -> field);
    end if;
    return null;
end
$$;
comment on function pmpp._item_statements(jsonb, text, text) is
    'internal: a field of a JSON item that is a list of statements';

create function pmpp._item_number(item jsonb, field text, place text) returns double precision
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    number numeric;
begin
    perform pmpp._check_json_type(item -> field, 'number', format('%s: %s', place, field));
    number := (item ->> field)::numeric;
    -- The error of the cast cannot be caught instead: that is not allowed in a parallel query.
    if abs(number) > 1.7976931348623157e308 or number <> 0 and abs(number) < 5e-324 then
        raise invalid_parameter_value using
            message = format('%s: %s is out of range: %s', place, field, left(item ->> field, 20));
    end if;
    return number;
end
$$;
comment on function pmpp._item_number(jsonb, text, text) is
    'internal: a field of a JSON item that is a number';

create function pmpp._check_item_keys(item jsonb, place text) returns void
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    unknown_keys text;
begin
    if jsonb_typeof(item) is distinct from 'object' then
        raise invalid_parameter_value using
            message = format('%s must be a JSON object, not %s', place, coalesce(jsonb_typeof(item), 'null'));
    end if;
    select string_agg(k, ', ' order by k) into unknown_keys
      from jsonb_object_keys(item) k
     where k not in ('connection', 'queries', 'query', 'cpu_multiplier', 'multiplier', 'num_workers',
                     'setup_commands', 'statement_timeout', 'result_format');
    if unknown_keys is not null then
        raise warning '%: unknown keys are ignored: %', place, unknown_keys;
    end if;
end
$$;
comment on function pmpp._check_item_keys(jsonb, text) is
    'internal: raise an error unless this is a JSON object, and a warning if it has unknown keys';

create function pmpp._to_query_manifest(item jsonb, place text) returns pmpp.query_manifest
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
    result pmpp.query_manifest;
    workers double precision;
begin
    perform pmpp._check_item_keys(item, place);
    perform pmpp._check_json_type(item -> field, 'string', format('%s: %s', place, field))
       from unnest(array['connection', 'query', 'result_format']) field;

    result.connection := item ->> 'connection';
    result.result_format := item ->> 'result_format';
    result.queries := pmpp._item_statements(item, 'queries', place);
    if item ->> 'query' is not null then
        result.queries := array_append(result.queries, item ->> 'query');
    end if;
    result.cpu_multiplier := coalesce(
        pmpp._item_number(item, 'cpu_multiplier', place),
        pmpp._item_number(item, 'multiplier', place)
    );

    workers := pmpp._item_number(item, 'num_workers', place);
    if workers <> trunc(workers) or abs(workers) > 2147483647 then
        raise invalid_parameter_value using
            message = format('%s: num_workers must be an integer, not %s', place, workers);
    end if;
    result.num_workers := workers;

    result.setup_commands := pmpp._item_statements(item, 'setup_commands', place);
    if jsonb_typeof(item -> 'statement_timeout') <> 'number' then
        perform pmpp._check_json_type(
            item -> 'statement_timeout', 'string', format('%s: statement_timeout', place));
    end if;
    if item ->> 'statement_timeout' is not null then
        result.setup_commands := array_append(
            result.setup_commands, format('set statement_timeout to %L', item ->> 'statement_timeout'));
    end if;
    return result;
end
$$;
comment on function pmpp._to_query_manifest(jsonb, text) is
    'internal: read an item in JSON; messages name it as told';

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
