-- A hold's row is three kilobytes, so with a third of each page kept free every hold had a page of its own: a table of 26,000 pages after 26,000 turns, until the next vacuum. Now two
-- share one, and the vacuum, which takes no time on what is nearly empty, comes sooner.
SET LOCAL ROLE astra_owner;
ALTER TABLE public.holds SET (fillfactor = 100, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
