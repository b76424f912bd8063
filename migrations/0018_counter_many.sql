-- What waits for one workspace's lock goes together: many calls of the counter as one statement, with one lock and one commit (astra_quota_rows::Grouped).
--
-- Each call is the function of its name with its argument, in the order given; each sees what those before it have done. They are done all or none: a call that
-- fails fails the statement, and the caller then sends each by itself.

SET LOCAL ROLE astra_owner;

-- [[name, argument]] -> [answer]
CREATE FUNCTION astra.counter_many(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_call json;
  v_arg text;
  v_answer text;
  v_answers text[] := '{}';
BEGIN
  PERFORM set_config('astra.workspace', p_workspace, true);
  -- Before any hold is locked: the order of locks is the counter's first.
  PERFORM astra.counter_lock(p_workspace);
  FOR v_call IN SELECT e.value FROM json_array_elements(p_arg::json) WITH ORDINALITY e ORDER BY e.ordinality LOOP
    v_arg := v_call ->> 1;
    CASE v_call ->> 0
      WHEN 'hold_take' THEN v_answer := astra.hold_take(p_workspace, v_arg);
      WHEN 'hold_extend' THEN v_answer := astra.hold_extend(p_workspace, v_arg);
      WHEN 'hold_grow' THEN v_answer := astra.hold_grow(p_workspace, v_arg);
      WHEN 'hold_wait' THEN v_answer := astra.hold_wait(p_workspace, v_arg);
      WHEN 'hold_finish' THEN v_answer := astra.hold_finish(p_workspace, v_arg);
    END CASE;
    v_answers := v_answers || v_answer;
  END LOOP;
  RETURN concat('[', array_to_string(v_answers, ','), ']');
END
$$;

-- [argument of hold_begin] -> [answer]. Reads only, all from one snapshot.
CREATE FUNCTION astra.hold_begin_many(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_arg json;
  v_answers text[] := '{}';
BEGIN
  FOR v_arg IN SELECT e.value FROM json_array_elements(p_arg::json) WITH ORDINALITY e ORDER BY e.ordinality LOOP
    v_answers := v_answers || astra.hold_begin(p_workspace, v_arg::text);
  END LOOP;
  RETURN concat('[', array_to_string(v_answers, ','), ']');
END
$$;

GRANT EXECUTE ON FUNCTION astra.counter_many(text, text), astra.hold_begin_many(text, text) TO astra_quota;
