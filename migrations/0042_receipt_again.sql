-- A settlement that is sent again has its receipt again, whether an answer was saved with it or not, as from the counter's object.

DO $$
DECLARE
  v_is text := pg_get_functiondef('astra.hold_finish(text, text)'::regprocedure);
  v_old text := $old$'quota', jsonb_build_object('windows', jsonb_build_array()))::text;$old$;
  v_new text := $new$'quota', jsonb_build_object('windows', jsonb_build_array()), 'receipt', v_saved -> 'receipt')::text;$new$;
BEGIN
  IF length(v_is) - length(replace(v_is, v_old, '')) <> length(v_old) THEN
    RAISE EXCEPTION 'hold_finish is not as it was';
  END IF;
  EXECUTE replace(v_is, v_old, v_new);
END
$$;
