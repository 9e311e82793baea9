-- The fronts: each runs a manifest as its row type demands, and raises errors without what
-- PL/Python wraps around them. They set no search_path: values are converted under the
-- caller's, as everywhere in PostgreSQL.

create function @extschema@.distribute(row_type anyelement, query_manifest @extschema@.query_manifest[])
returns setof anyelement
language plpgsql volatile parallel unsafe security invoker
as $$
declare
    detail pg_catalog.text;
    hint pg_catalog.text;
begin
    return query execute @extschema@._rows_statement(pg_catalog.pg_typeof(row_type))
        using query_manifest;
exception when others or query_canceled or assert_failure then
    get stacked diagnostics detail = pg_exception_detail, hint = pg_exception_hint;
    perform @extschema@._raise(sqlstate, sqlerrm, detail, hint);
end
$$;
comment on function @extschema@.distribute(anyelement, @extschema@.query_manifest[]) is
    'run the queries of a manifest in parallel and return their rows in the shape of row_type';
revoke all on function @extschema@.distribute(anyelement, @extschema@.query_manifest[]) from public;
grant execute on function @extschema@.distribute(anyelement, @extschema@.query_manifest[]) to pmpp;

create function @extschema@.distribute(row_type anyelement, query_manifest jsonb)
returns setof anyelement
language plpgsql volatile parallel unsafe security invoker
as $$
declare
    detail pg_catalog.text;
    hint pg_catalog.text;
begin
    return query execute @extschema@._rows_statement(pg_catalog.pg_typeof(row_type))
        using @extschema@.to_query_manifest_array(query_manifest);
exception when others or query_canceled or assert_failure then
    get stacked diagnostics detail = pg_exception_detail, hint = pg_exception_hint;
    perform @extschema@._raise(sqlstate, sqlerrm, detail, hint);
end
$$;
comment on function @extschema@.distribute(anyelement, jsonb) is
    'run the queries of a manifest in jsonb in parallel and return their rows in the shape of row_type';
revoke all on function @extschema@.distribute(anyelement, jsonb) from public;
grant execute on function @extschema@.distribute(anyelement, jsonb) to pmpp;

create function @extschema@.distribute(row_type anyelement, query_manifest json)
returns setof anyelement
language plpgsql volatile parallel unsafe security invoker
as $$
declare
    detail pg_catalog.text;
    hint pg_catalog.text;
begin
    return query execute @extschema@._rows_statement(pg_catalog.pg_typeof(row_type))
        using @extschema@.to_query_manifest_array(query_manifest);
exception when others or query_canceled or assert_failure then
    get stacked diagnostics detail = pg_exception_detail, hint = pg_exception_hint;
    perform @extschema@._raise(sqlstate, sqlerrm, detail, hint);
end
$$;
comment on function @extschema@.distribute(anyelement, json) is
    'run the queries of a manifest in json in parallel and return their rows in the shape of row_type';
revoke all on function @extschema@.distribute(anyelement, json) from public;
grant execute on function @extschema@.distribute(anyelement, json) to pmpp;

create function @extschema@.distribute(
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
as $$
declare
    detail pg_catalog.text;
    hint pg_catalog.text;
begin
    return query execute @extschema@._rows_statement(pg_catalog.pg_typeof(row_type))
        using array[row(
            connection, sql_list, cpu_multiplier, num_workers, setup_commands, result_format
        )::@extschema@.query_manifest];
exception when others or query_canceled or assert_failure then
    get stacked diagnostics detail = pg_exception_detail, hint = pg_exception_hint;
    perform @extschema@._raise(sqlstate, sqlerrm, detail, hint);
end
$$;
comment on function @extschema@.distribute(anyelement, text, text[], double precision, integer, text[], text) is
    'run queries on one connection in parallel and return their rows in the shape of row_type';
revoke all on function @extschema@.distribute(anyelement, text, text[], double precision, integer, text[], text) from public;
grant execute on function @extschema@.distribute(anyelement, text, text[], double precision, integer, text[], text) to pmpp;
