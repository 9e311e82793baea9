create function pmpp._broadcast_manifest(connections text[], query text, result_formats text[])
returns pmpp.query_manifest[]
language plpgsql immutable parallel safe security invoker
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_generic_plan
as $$
begin
    if coalesce(cardinality(connections), 0) = 0 then
        raise invalid_parameter_value using message = 'connections must not be null or empty';
    elsif array_ndims(connections) > 1 or array_ndims(result_formats) > 1 then
        raise array_subscript_error using
            message = 'connections and result_formats must be arrays of one dimension';
    elsif cardinality(result_formats) <> cardinality(connections) then
        raise invalid_parameter_value using
            message = format('result_formats has %s elements where connections has %s',
                             cardinality(result_formats), cardinality(connections)),
            hint = 'Give one format for each connection, or leave result_formats out.';
    elsif query is null then
        raise null_value_not_allowed using message = 'query must not be null';
    end if;
    return array(
        select row(t.connection, array[query], null, 1, null, t.result_format)::pmpp.query_manifest
          from unnest(connections, result_formats) with ordinality t(connection, result_format, n)
         order by t.n
    );
end
$$;
comment on function pmpp._broadcast_manifest(text[], text, text[]) is
    'internal: a manifest with one query on every connection';

create function pmpp.broadcast(
    row_type anyelement,
    connections text[],
    query text,
    result_formats text[] default null
)
returns setof anyelement
language plpgsql volatile parallel unsafe security invoker
set intervalstyle = 'sql_standard'
set array_nulls = on
as $$
declare
    key pg_catalog.int8;
    error pmpp._error;
begin
    key := pmpp._hand_over(pmpp._broadcast_manifest(connections, query, result_formats));
    return query execute pmpp._rows_statement(pg_catalog.pg_typeof(row_type)) using key;
exception when others or query_canceled or assert_failure then
    get stacked diagnostics error.sqlstate = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint,
        error.schema_name = schema_name, error.table_name = table_name, error.column_name = column_name,
        error.datatype_name = pg_datatype_name, error.constraint_name = constraint_name;
    error := pmpp._raise(key, error);
end
$$;
comment on function pmpp.broadcast(anyelement, text[], text, text[]) is
    'run one query on every connection at the same time and return all rows in the shape of row_type';
