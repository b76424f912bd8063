-- An invoice is told to the workspace's webhooks that want it (0036), in the transaction that closes its month. Not what the operator itself has paid: that is not the workspace's to know.
-- Of a workspace that is deleted there are no webhooks; who has its name after it is told nothing of it.

SET LOCAL ROLE astra_owner;
CREATE POLICY books ON public.webhooks FOR SELECT TO astra_books USING (true);
CREATE POLICY books ON public.webhook_deliveries TO astra_books USING (true) WITH CHECK (true);
GRANT SELECT (workspace_id, name, events, disabled_at) ON public.webhooks TO astra_books;
GRANT SELECT (workspace_id), INSERT ON public.webhook_deliveries TO astra_books;
GRANT CREATE ON SCHEMA astra TO astra_books;

SET LOCAL ROLE astra_books;
CREATE FUNCTION astra.invoice_told() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
$$
BEGIN
  IF NEW.since_seq = (SELECT max(h.since_seq) FROM public.invoice_heads h WHERE h.workspace_id = NEW.workspace_id) THEN
    INSERT INTO public.webhook_deliveries (workspace_id, id, webhook, type, body, created_at, next_at)
    SELECT NEW.workspace_id, gen_random_uuid(), w.name, 'invoice.closed', (json_build_object('type', 'invoice.closed', 'timestamp', astra.ts(NEW.issued_at),
             'data', astra.invoice_json(NEW, false) - 'totalCostNanoUsd'))::text, NEW.issued_at, NEW.issued_at
    FROM public.webhooks w WHERE w.workspace_id = NEW.workspace_id AND 'invoice.closed' = ANY (w.events) AND w.disabled_at IS NULL;
  END IF;
  RETURN NULL;
END
$$;
REVOKE EXECUTE ON FUNCTION astra.invoice_told() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION astra.invoice_told() TO astra_owner;

SET LOCAL ROLE astra_owner;
REVOKE CREATE ON SCHEMA astra FROM astra_books;
-- The owner has no rights to invoices (0035) but that it may give itself some.
GRANT TRIGGER ON public.invoices TO astra_owner;
CREATE TRIGGER told AFTER INSERT ON public.invoices FOR EACH ROW EXECUTE FUNCTION astra.invoice_told();
REVOKE TRIGGER ON public.invoices FROM astra_owner;
REVOKE EXECUTE ON FUNCTION astra.invoice_told() FROM astra_owner;
