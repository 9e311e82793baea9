-- What PL/Proxy needs, after setup.sql. Variable of psql: here (a connection string).
-- Connections count as different only if their strings differ: here in the schema that they see.
create extension plproxy;

select format('create server %I foreign data wrapper plproxy options (%s)', name,
              (select string_agg(format('p%s %L', n - 1, :'here' || ' options=-csearch_path=' || schema), ', ')
                 from unnest(schemas) with ordinality s(schema, n)))
  from (values ('one', array['whole']),
               ('two', array['part_0', 'part_1']),
               ('four', array['part_0', 'part_1', 'part_2', 'part_3'])) clusters (name, schemas) \gexec
create user mapping for postgres server one options (user 'postgres');
create user mapping for postgres server two options (user 'postgres');
create user mapping for postgres server four options (user 'postgres');

create function plproxy_burn_two() returns setof bigint language plproxy as $$
    cluster 'two'; run on all; select n from public.burn;
$$;
create function plproxy_narrow_one() returns setof whole.narrow language plproxy as $$
    cluster 'one'; run on all; select * from narrow;
$$;
create function plproxy_narrow_four() returns setof whole.narrow language plproxy as $$
    cluster 'four'; run on all; select * from narrow;
$$;
create function plproxy_mixed_one() returns setof whole.mixed language plproxy as $$
    cluster 'one'; run on all; select * from mixed;
$$;
create function plproxy_mixed_four() returns setof whole.mixed language plproxy as $$
    cluster 'four'; run on all; select * from mixed;
$$;
