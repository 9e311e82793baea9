create function @extschema@.meta(
    connection text,
    sql_list text[],
    cpu_multiplier double precision default null,
    num_workers integer default null,
    setup_commands text[] default null,
    result_format text default null
)
returns setof @extschema@.command_with_result
language plpgsql volatile parallel unsafe security invoker
as $$
declare
    detail pg_catalog.text;
    hint pg_catalog.text;
begin
    return query execute @extschema@._rows_statement('@extschema@.command_with_result')
        using array[row(
            connection, sql_list, cpu_multiplier, num_workers, setup_commands, result_format
        )::@extschema@.query_manifest];
exception when others or query_canceled or assert_failure then
    get stacked diagnostics detail = pg_exception_detail, hint = pg_exception_hint;
    perform @extschema@._raise(sqlstate, sqlerrm, detail, hint);
end
$$;
comment on function @extschema@.meta(text, text[], double precision, integer, text[], text) is
    'run statements that return no rows in parallel, and return each with its command tag';
revoke all on function @extschema@.meta(text, text[], double precision, integer, text[], text) from public;
grant execute on function @extschema@.meta(text, text[], double precision, integer, text[], text) to pmpp;
