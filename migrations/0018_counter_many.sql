-- Many calls for one workspace as one statement, with one commit (astra_store::Grouped). Each call is the function of its name with its argument, in the order
-- given; each sees what those before it have done. They are done all or none: a call that fails fails the statement, and the caller then sends each by itself.

SET LOCAL ROLE astra_owner;

-- [[name, argument]] -> [answer]
CREATE FUNCTION astra.turns_many(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan AS
$$
DECLARE
  v_call json;
  v_arg text;
  v_answer text;
  v_answers text[] := '{}';
BEGIN
  FOR v_call IN SELECT e.value FROM json_array_elements(p_arg::json) WITH ORDINALITY e ORDER BY e.ordinality LOOP
    v_arg := v_call ->> 1;
    CASE v_call ->> 0
      WHEN 'turn_begin' THEN v_answer := astra.turn_begin(p_workspace, v_arg);
      WHEN 'turn_finish' THEN v_answer := astra.turn_finish(p_workspace, v_arg);
      WHEN 'hold_begin' THEN v_answer := astra.hold_begin(p_workspace, v_arg);
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

-- The same for calls that wait for the counter's lock, which is taken once and first: the order of locks is the counter's before a hold's.
CREATE FUNCTION astra.counter_many(p_workspace text, p_arg text) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  PERFORM astra.counter_lock(p_workspace);
  RETURN astra.turns_many(p_workspace, p_arg);
END
$$;

GRANT EXECUTE ON FUNCTION astra.counter_many(text, text), astra.turns_many(text, text) TO astra_quota;
