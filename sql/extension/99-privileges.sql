-- The privileges on all objects of the extension. PostgreSQL lets everybody call a new function, and
-- default privileges of the role that creates the extension may give any privilege to anybody. This
-- revokes all of them, and grants what the owner and the role pmpp need. Only the owner may call
-- detect_cpus().
do $$
declare
    object pg_catalog.record;
    grantee pg_catalog.text;
begin
    for object in
        select pg_catalog.concat('schema ', n.oid::pg_catalog.regnamespace) as name, 'usage' as privilege,
               n.nspowner as owner, n.nspacl as acl
          from pg_catalog.pg_namespace n
         where n.nspname operator(pg_catalog.=) 'pmpp'
        union all
        select pg_catalog.concat('function ', p.oid::pg_catalog.regprocedure),
               case when p.proname operator(pg_catalog.<>) 'detect_cpus' then 'execute' end,
               p.proowner, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
          from pg_catalog.pg_proc p
         where p.pronamespace operator(pg_catalog.=) 'pmpp'::pg_catalog.regnamespace
        union all
        select pg_catalog.concat('table ', c.oid::pg_catalog.regclass), 'select', c.relowner, c.relacl
          from pg_catalog.pg_class c
         where c.relnamespace operator(pg_catalog.=) 'pmpp'::pg_catalog.regnamespace
           and c.relkind operator(pg_catalog.=) any ('{r,v}')
        union all
        select pg_catalog.concat('type ', t.oid::pg_catalog.regtype), 'usage', t.typowner,
               coalesce(t.typacl, pg_catalog.acldefault('T', t.typowner))
          from pg_catalog.pg_type t
          join pg_catalog.pg_class c on c.oid operator(pg_catalog.=) t.typrelid
         where t.typnamespace operator(pg_catalog.=) 'pmpp'::pg_catalog.regnamespace
           and c.relkind operator(pg_catalog.=) 'c'
    loop
        for grantee in
            select distinct case a.grantee when 0 then 'public'
                   else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end
              from pg_catalog.aclexplode(object.acl) a
             where a.grantee operator(pg_catalog.<>) object.owner
        loop
            execute pg_catalog.format('revoke all on %s from %s cascade', object.name, grantee);
        end loop;
        execute pg_catalog.format('grant all on %s to %I', object.name, pg_catalog.pg_get_userbyid(object.owner));
        if object.privilege is not null then
            execute pg_catalog.format('grant %s on %s to pmpp', object.privilege, object.name);
        end if;
    end loop;
end
$$;
