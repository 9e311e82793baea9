-- SQL wrapper functions. Each runs a manifest as its row type demands, and raises errors without what
-- PL/Python wraps around them; doc/internals.md says why they repeat themselves. They set no
-- search_path: PostgreSQL converts values under the caller's, as everywhere. Under IntervalStyle
-- sql_standard PostgreSQL reads every style right. Under the others it takes -1 2:03:04 for
-- -1 days +02:03:04. With array_nulls off it takes a null in an array for a string.

create function pmpp.distribute(row_type anyelement, query_manifest pmpp.query_manifest[])
returns setof anyelement
language plpgsql volatile parallel unsafe security invoker
set intervalstyle = 'sql_standard'
set array_nulls = on
as $$
declare
    key pg_catalog.int8;
    error pmpp._error;
begin
    key := pmpp._hand_over(query_manifest);
    return query execute pmpp._rows_statement(pg_catalog.pg_typeof(row_type)) using key;
exception when others or query_canceled or assert_failure then
    get stacked diagnostics error.sqlstate = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint,
        error.schema_name = schema_name, error.table_name = table_name, error.column_name = column_name,
        error.datatype_name = pg_datatype_name, error.constraint_name = constraint_name;
    error := pmpp._raise(key, error);
end
$$;
comment on function pmpp.distribute(anyelement, pmpp.query_manifest[]) is
    'run the queries of a manifest in parallel and return their rows in the shape of row_type';

create function pmpp.distribute(row_type anyelement, query_manifest jsonb)
returns setof anyelement
language plpgsql volatile parallel unsafe security invoker
set intervalstyle = 'sql_standard'
set array_nulls = on
as $$
declare
    key pg_catalog.int8;
    error pmpp._error;
begin
    key := pmpp._hand_over(pmpp.to_query_manifest_array(query_manifest));
    return query execute pmpp._rows_statement(pg_catalog.pg_typeof(row_type)) using key;
exception when others or query_canceled or assert_failure then
    get stacked diagnostics error.sqlstate = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint,
        error.schema_name = schema_name, error.table_name = table_name, error.column_name = column_name,
        error.datatype_name = pg_datatype_name, error.constraint_name = constraint_name;
    error := pmpp._raise(key, error);
end
$$;
comment on function pmpp.distribute(anyelement, jsonb) is
    'run the queries of a manifest in jsonb in parallel and return their rows in the shape of row_type';

create function pmpp.distribute(row_type anyelement, query_manifest json)
returns setof anyelement
language plpgsql volatile parallel unsafe security invoker
set intervalstyle = 'sql_standard'
set array_nulls = on
as $$
declare
    key pg_catalog.int8;
    error pmpp._error;
begin
    key := pmpp._hand_over(pmpp.to_query_manifest_array(query_manifest));
    return query execute pmpp._rows_statement(pg_catalog.pg_typeof(row_type)) using key;
exception when others or query_canceled or assert_failure then
    get stacked diagnostics error.sqlstate = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint,
        error.schema_name = schema_name, error.table_name = table_name, error.column_name = column_name,
        error.datatype_name = pg_datatype_name, error.constraint_name = constraint_name;
    error := pmpp._raise(key, error);
end
$$;
comment on function pmpp.distribute(anyelement, json) is
    'run the queries of a manifest in json in parallel and return their rows in the shape of row_type';

create function pmpp.distribute(
    row_type anyelement,
    connection text,
    sql_list text[],
    cpu_multiplier double precision default 1.0,
    num_workers integer default null,
    setup_commands text[] default null,
    result_format text default null
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
    key := pmpp._hand_over(array[row(
        connection, sql_list, cpu_multiplier, num_workers, setup_commands, result_format
    )::pmpp.query_manifest]);
    return query execute pmpp._rows_statement(pg_catalog.pg_typeof(row_type)) using key;
exception when others or query_canceled or assert_failure then
    get stacked diagnostics error.sqlstate = returned_sqlstate, error.message = message_text,
        error.detail = pg_exception_detail, error.hint = pg_exception_hint,
        error.schema_name = schema_name, error.table_name = table_name, error.column_name = column_name,
        error.datatype_name = pg_datatype_name, error.constraint_name = constraint_name;
    error := pmpp._raise(key, error);
end
$$;
comment on function pmpp.distribute(anyelement, text, text[], double precision, integer, text[], text) is
    'run queries on one connection in parallel and return their rows in the shape of row_type';
