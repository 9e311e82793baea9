-- pmpp on another server reads the number of CPUs from here, in a new session that must not start
-- Python. So detect_cpus() writes the number into the body of a function, and pmpp reads that body
-- without calling the function: keep it a constant.

create function pmpp.detect_cpus() returns integer
language plpython3u volatile parallel unsafe security invoker
as $$
import os
cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
plpy.execute(f"""
    create or replace function pmpp.num_cpus() returns integer
    language sql stable parallel safe security invoker
    as 'select {cpus}'
""")
return cpus
$$;
comment on function pmpp.detect_cpus() is
    'count the CPUs of this machine, keep the number for num_cpus(), and return it';

select pmpp.detect_cpus();
comment on function pmpp.num_cpus() is
    'the number of CPUs of this machine when the extension was created or detect_cpus() was last run';
