-- What is measured, as views, so that every contender runs the same queries, and what the peers of
-- pmpp from contrib need. Variables of psql: here (a connection string), host, port,
-- rows (of a bulk query), burn (how long a CPU-bound query takes).

create extension pmpp cascade;
create extension dblink;
create extension postgres_fdw;

create function process_time() returns float8 language plpython3u as $$
    import time
    return time.process_time()
$$;
comment on function process_time() is 'CPU seconds that this server process has used';

-- ---- The work ----

create view burn as
    select count(*) as n from generate_series(1, 1000) a, generate_series(1, :burn) b where (a + b) % 7 = 0;

create function narrow_rows(first integer, last integer) returns table (a integer, b integer, c text)
language sql immutable as $$
    select n, n % 1000, 'name ' || n from generate_series(first, last) n
$$;
comment on function narrow_rows(integer, integer) is 'rows of 3 narrow columns';

create function mixed_rows(first integer, last integer)
    returns table (n numeric, t timestamptz, x text, j json, f float8, u uuid, b bool, i int8)
language sql immutable as $$
    select n::numeric / 7, timestamptz '2020-01-01' + n * interval '1 second', 'text ' || n,
           json_build_object('n', n), sqrt(n), md5(n::text)::uuid, n % 2 = 0, n::bigint << 20
      from generate_series(first, last) n
$$;
comment on function mixed_rows(integer, integer) is 'rows of 8 columns of different types';

-- all rows in schema whole, and a quarter each in part_0 to part_3
create temporary table parts as
    select 'whole' as name, 0 as first, :rows as past
    union all
    select 'part_' || n, n * :rows / 4, (n + 1) * :rows / 4 from generate_series(0, 3) n;
select format('create schema %I', name) from parts \gexec
select format('create view %I.narrow as select * from narrow_rows(%s, %s)', name, first, past - 1) from parts \gexec
select format('create view %I.mixed as select * from mixed_rows(%s, %s)', name, first, past - 1) from parts \gexec

-- ---- dblink by hand: a queue of queries over several connections ----

create function dblink_queue(connection text, queries text[], workers integer) returns bigint
language plpgsql as $$
declare
    worker text;
    busy text[] := '{}';
    sent integer := 0;
    row_count bigint := 0;
begin
    for number in 1..workers loop
        perform dblink_connect('worker ' || number, connection);
    end loop;
    loop
        for number in 1..workers loop
            worker := 'worker ' || number;
            if worker = any (busy) then
                continue when dblink_is_busy(worker) = 1;
                row_count := row_count + count(*) from dblink_get_result(worker) as r(n bigint);
                perform from dblink_get_result(worker) as r(n bigint);  -- the end of the results
                busy := array_remove(busy, worker);
            end if;
            if sent < cardinality(queries) then
                sent := sent + 1;
                perform dblink_send_query(worker, queries[sent]);
                busy := busy || worker;
            end if;
        end loop;
        exit when busy = '{}';
        perform pg_sleep(0.001);
    end loop;
    for number in 1..workers loop
        perform dblink_disconnect('worker ' || number);
    end loop;
    return row_count;
end
$$;
comment on function dblink_queue(text, text[], integer) is
    'run queries that return an integer each, and return the number of rows';

-- ---- postgres_fdw: a server for each connection, partitions over them ----

select format($$create server remote_%s foreign data wrapper postgres_fdw
                options (host %L, port %L, dbname 'postgres', async_capable 'true', fetch_size '10000')$$,
              n, :'host', :'port')
  from generate_series(0, 3) n \gexec
select format('create user mapping for postgres server remote_%s', n) from generate_series(0, 3) n \gexec

create schema fdw_whole;
import foreign schema whole from server remote_0 into fdw_whole;

create schema fdw_parts;
create table fdw_parts.narrow (like whole.narrow) partition by range (a);
create table fdw_parts.mixed (like whole.mixed) partition by range (i);
select format('create foreign table fdw_parts.narrow_%1$s partition of fdw_parts.narrow
                   for values from (%2$s) to (%3$s) server remote_%1$s
                   options (schema_name %4$L, table_name %5$L)',
              right(name, 1), first, past, name, 'narrow')
  from parts where name <> 'whole' \gexec
select format('create foreign table fdw_parts.mixed_%1$s partition of fdw_parts.mixed
                   for values from (%2$s) to (%3$s) server remote_%1$s
                   options (schema_name %4$L, table_name %5$L)',
              right(name, 1), first::bigint << 20, past::bigint << 20, name, 'mixed')
  from parts where name <> 'whole' \gexec

-- 8 CPU-bound queries as 8 partitions on two servers
create table fdw_parts.burns (part integer, n bigint) partition by list (part);
select format('create view burn_%1$s as select %1$s as part, n from burn', n) from generate_series(1, 8) n \gexec
select format('create foreign table fdw_parts.burns_%1$s partition of fdw_parts.burns
                   for values in (%1$s) server remote_%2$s
                   options (schema_name %3$L, table_name %4$L)', n, n % 2, 'public', 'burn_' || n)
  from generate_series(1, 8) n \gexec
