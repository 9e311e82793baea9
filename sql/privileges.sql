-- Who may call what, and every object has a comment.
select p.oid::regprocedure::text as function,
       has_function_privilege('pmpp', p.oid, 'execute') as pmpp,
       exists (select from aclexplode(p.proacl) a where a.grantee = 0) or p.proacl is null as public,
       p.prosecdef as definer, p.provolatile as volatile, p.proparallel as parallel,
       obj_description(p.oid, 'pg_proc') is not null as commented
  from pg_proc p where p.pronamespace = 'pmpp'::regnamespace
 order by p.oid::regprocedure::text collate "C";
-- whatever else belongs to the extension has a comment too; on newer servers the types that come
-- with a relation or another type belong to it as well, and need none
select pg_describe_object(classid, objid, objsubid) as object
  from pg_depend e
 where refclassid = 'pg_extension'::regclass and deptype = 'e'
   and refobjid = (select oid from pg_extension where extname = 'pmpp')
   and obj_description(objid, classid::regclass::text) is null
   and not exists (select from pg_depend i where i.deptype = 'i' and (i.classid, i.objid) = (e.classid, e.objid))
 order by pg_describe_object(classid, objid, objsubid) collate "C";
select obj_description('pmpp'::regnamespace) is not null as schema, shobj_description('pmpp'::regrole, 'pg_authid') is not null as role;
-- relations: who may read and write them
select c.relname as relation, c.relkind as kind, r.rolname as role,
       has_table_privilege(r.oid, c.oid, 'select') as read,
       has_table_privilege(r.oid, c.oid, 'insert, update, delete, truncate') as write
  from pg_class c, pg_roles r
 where c.relnamespace = 'pmpp'::regnamespace and c.relkind in ('r', 'v') and r.rolname in ('pmpp', 'pg_monitor')
 order by 1, 3;
