create function pmpp.meta(
    connection text,
    sql_list text[],
    cpu_multiplier double precision default null,
    num_workers integer default null,
    setup_commands text[] default null,
    result_format text default null
)
returns setof pmpp.command_with_result
language plpgsql volatile parallel unsafe security invoker
as $$
declare
    detail pg_catalog.text;
    hint pg_catalog.text;
begin
    return query execute pmpp._rows_statement('pmpp.command_with_result')
        using array[row(
            connection, sql_list, cpu_multiplier, num_workers, setup_commands, result_format
        )::pmpp.query_manifest];
exception when others or query_canceled or assert_failure then
    get stacked diagnostics detail = pg_exception_detail, hint = pg_exception_hint;
    perform pmpp._raise(sqlstate, sqlerrm, detail, hint);
end
$$;
comment on function pmpp.meta(text, text[], double precision, integer, text[], text) is
    'run statements that return no rows in parallel, and return each with its command tag';
revoke all on function pmpp.meta(text, text[], double precision, integer, text[], text) from public;
grant execute on function pmpp.meta(text, text[], double precision, integer, text[], text) to pmpp;
