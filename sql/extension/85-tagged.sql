-- Rows with where they came from. The column result is of the row type: (result).* takes it apart.

create function pmpp.distribute_tagged(
    row_type anyelement,
    query_manifest pmpp.query_manifest[]
)
returns table (item integer, connection text, query_number integer, result anyelement)
language plpgsql volatile parallel unsafe security invoker
set intervalstyle = 'sql_standard'
set array_nulls = on
as $$
declare
    key pg_catalog.int8;
    error pmpp._error;
begin
    key := pmpp._hand_over(query_manifest);
    return query execute pmpp._rows_statement(pg_catalog.pg_typeof(row_type), is_tagged => true) using key;
exception when others or query_canceled or assert_failure then
    get stacked diagnostics error.sqlstate = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint,
        error.schema_name = schema_name, error.table_name = table_name, error.column_name = column_name,
        error.datatype_name = pg_datatype_name, error.constraint_name = constraint_name;
    error := pmpp._raise(key, error);
end
$$;
comment on function pmpp.distribute_tagged(anyelement, pmpp.query_manifest[]) is
    'run the queries of a manifest in parallel and return their rows, each with the query that it is from';

create function pmpp.distribute_tagged(
    row_type anyelement,
    query_manifest jsonb
)
returns table (item integer, connection text, query_number integer, result anyelement)
language plpgsql volatile parallel unsafe security invoker
set intervalstyle = 'sql_standard'
set array_nulls = on
as $$
declare
    key pg_catalog.int8;
    error pmpp._error;
begin
    key := pmpp._hand_over(pmpp.to_query_manifest_array(query_manifest));
    return query execute pmpp._rows_statement(pg_catalog.pg_typeof(row_type), is_tagged => true) using key;
exception when others or query_canceled or assert_failure then
    get stacked diagnostics error.sqlstate = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint,
        error.schema_name = schema_name, error.table_name = table_name, error.column_name = column_name,
        error.datatype_name = pg_datatype_name, error.constraint_name = constraint_name;
    error := pmpp._raise(key, error);
end
$$;
comment on function pmpp.distribute_tagged(anyelement, jsonb) is
    'run the queries of a manifest in jsonb in parallel and return their rows, each with the query that it is from';

create function pmpp.distribute_tagged(
    row_type anyelement,
    query_manifest json
)
returns table (item integer, connection text, query_number integer, result anyelement)
language plpgsql volatile parallel unsafe security invoker
set intervalstyle = 'sql_standard'
set array_nulls = on
as $$
declare
    key pg_catalog.int8;
    error pmpp._error;
begin
    key := pmpp._hand_over(pmpp.to_query_manifest_array(query_manifest));
    return query execute pmpp._rows_statement(pg_catalog.pg_typeof(row_type), is_tagged => true) using key;
exception when others or query_canceled or assert_failure then
    get stacked diagnostics error.sqlstate = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint,
        error.schema_name = schema_name, error.table_name = table_name, error.column_name = column_name,
        error.datatype_name = pg_datatype_name, error.constraint_name = constraint_name;
    error := pmpp._raise(key, error);
end
$$;
comment on function pmpp.distribute_tagged(anyelement, json) is
    'run the queries of a manifest in json in parallel and return their rows, each with the query that it is from';

create function pmpp.broadcast_tagged(
    row_type anyelement,
    connections text[],
    query text,
    result_formats text[] default null
)
returns table (item integer, connection text, query_number integer, result anyelement)
language plpgsql volatile parallel unsafe security invoker
set intervalstyle = 'sql_standard'
set array_nulls = on
as $$
declare
    key pg_catalog.int8;
    error pmpp._error;
begin
    key := pmpp._hand_over(pmpp._broadcast_manifest(connections, query, result_formats));
    return query execute pmpp._rows_statement(pg_catalog.pg_typeof(row_type), is_tagged => true) using key;
exception when others or query_canceled or assert_failure then
    get stacked diagnostics error.sqlstate = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint,
        error.schema_name = schema_name, error.table_name = table_name, error.column_name = column_name,
        error.datatype_name = pg_datatype_name, error.constraint_name = constraint_name;
    error := pmpp._raise(key, error);
end
$$;
comment on function pmpp.broadcast_tagged(anyelement, text[], text, text[]) is
    'run one query on every connection at the same time and return all rows, each with its connection';
