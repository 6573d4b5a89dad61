-- Functions for dashboards and people, on top of `rollups` and `session_qoe`. Text in braces comes
-- from functions.rs. Queries are built as text, so that each is planned for what it reads.
--
-- All are STABLE: what they read of `rollup_blocks` and of `rollups` is of one snapshot.

-- The dimensions that `rollups` has: expression over `session_qoe`, and whether sessions without a
-- value are left out.
CREATE OR REPLACE FUNCTION qoe_dimensions(
    OUT name text, OUT expression text, OUT only_with_value boolean
) RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL SAFE ROWS 10
SET search_path = {schema}, pg_temp
AS $function$
    VALUES
{dimensions}
    UNION ALL
    SELECT o.name, quote_ident(o.name), false FROM own_dimensions AS o WHERE o.slot > 0
$function$;
COMMENT ON FUNCTION qoe_dimensions() IS
    'Dimensions that qoe() knows, each as an expression over session_qoe [{version}]';

-- A condition: an expression has one of these values.
CREATE OR REPLACE FUNCTION qoe_condition(expression text, chosen text[]) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = {schema}, pg_temp
AS $function$
    SELECT format('((%1$s) = ANY (%2$L::text[])%3$s)', expression, chosen,
        CASE WHEN 'not reported' = ANY (chosen) THEN format(' OR (%s) IS NULL', expression) ELSE '' END)
$function$;
COMMENT ON FUNCTION qoe_condition(text, text[]) IS
    'For qoe(): that an expression has one of these values, as SQL [{version}]';

-- The filters that are set, checked.
CREATE OR REPLACE FUNCTION qoe_filters(filters jsonb, OUT name text, OUT chosen text[])
RETURNS SETOF record
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 2
SET search_path = {schema}, pg_temp
AS $function$
DECLARE
    entry record;
BEGIN
    IF filters IS NOT NULL AND jsonb_typeof(filters) <> 'object' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'filters must be a JSON object, such as '
                '{"stream_type": "VOD", "app_version": ["1.0", "1.1"]}';
    END IF;
    FOR entry IN SELECT * FROM jsonb_each(coalesce(filters, '{}')) LOOP
        name := entry.key;
        IF name NOT IN ('tenant', 'stream_type')
            AND NOT EXISTS (SELECT FROM qoe_dimensions() AS d WHERE d.name = entry.key)
        THEN
            -- All in the message: Grafana shows no hint.
            RAISE invalid_parameter_value USING MESSAGE = format(
                'there is no filter %L; filters are tenant, stream_type, %s', name,
                (SELECT string_agg(d.name, ', ') FROM qoe_dimensions() AS d));
        END IF;
        chosen := CASE jsonb_typeof(entry.value)
            WHEN 'null' THEN '{}'
            WHEN 'string' THEN ARRAY[entry.value #>> '{}']
            WHEN 'array' THEN ARRAY(SELECT jsonb_array_elements_text(entry.value))
        END;
        IF chosen IS NULL OR array_position(chosen, NULL) IS NOT NULL THEN
            RAISE invalid_parameter_value USING
                MESSAGE = format('the filter %L must be a text or a list of texts; sessions without '
                    'a value are "not reported"', name);
        END IF;
        -- "All", as Grafana says it in one way or the other.
        IF cardinality(chosen) > 0 AND NOT chosen && ARRAY['__all__', '$__all'] THEN
            RETURN NEXT;
        END IF;
    END LOOP;
END
$function$;
COMMENT ON FUNCTION qoe_filters(jsonb) IS
    'For qoe(): the filters that are set, each with its values [{version}]';

-- What is to be read, as text for FROM, SELECT and GROUP BY. In the text, $1 and $2 are from_time
-- and to_time, $3 to $5 the times that are read from rows of a day, 6 hours and the shortest
-- length, $6 the step.
CREATE OR REPLACE FUNCTION qoe_plan(
    from_time timestamptz, to_time timestamptz, filters jsonb, by_name text, step interval,
    OUT is_raw boolean, OUT source text, OUT at text, OUT value text,
    OUT days tstzmultirange, OUT quarters tstzmultirange, OUT rest tstzmultirange,
    OUT every interval
)
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = {schema}, pg_temp
AS $function$
DECLARE
    -- Beside tenant and stream type, by which all rows are apart.
    dimensions text[] := '{}';
    conditions text := '';
    -- Of the dimensions, over `session_qoe` and over `rollups`.
    raw_conditions text := '';
    rollup_conditions text := '';
    by_expression text;
    base integer;
    seconds bigint;
    span_start timestamptz;
    span_end timestamptz;
    entry record;
BEGIN
    IF from_time IS NULL OR to_time IS NULL THEN
        RAISE null_value_not_allowed USING MESSAGE = 'from_time and to_time must not be null';
    END IF;
    IF by_name NOT IN ('tenant', 'stream_type') THEN
        SELECT * INTO entry FROM qoe_dimensions() AS d WHERE d.name = by_name;
        IF NOT FOUND THEN
            RAISE invalid_parameter_value USING MESSAGE = format(
                'there is no dimension %L; dimensions are tenant, stream_type, %s', by_name,
                (SELECT string_agg(d.name, ', ') FROM qoe_dimensions() AS d));
        END IF;
        dimensions := ARRAY[by_name];
        by_expression := entry.expression;
        IF entry.only_with_value THEN
            raw_conditions := format(' AND (%s) IS NOT NULL', by_expression);
        END IF;
    END IF;
    FOR entry IN
        SELECT f.name, f.chosen, d.expression, d.only_with_value
        FROM qoe_filters(filters) AS f LEFT JOIN qoe_dimensions() AS d USING (name)
    LOOP
        IF entry.expression IS NULL THEN
            conditions := conditions || ' AND ' || qoe_condition(
                CASE entry.name WHEN 'tenant' THEN 'tenant_id' ELSE entry.name END, entry.chosen);
        ELSE
            raw_conditions := raw_conditions || ' AND '
                || qoe_condition(entry.expression, entry.chosen);
            -- The rollups have no row for a session without such a value: "not reported" finds
            -- none of them here either.
            IF entry.only_with_value THEN
                raw_conditions := raw_conditions || format(' AND (%s) IS NOT NULL', entry.expression);
            END IF;
            rollup_conditions := rollup_conditions || ' AND '
                || qoe_condition('r.value', entry.chosen);
            IF entry.name <> ALL (dimensions) THEN
                dimensions := dimensions || entry.name;
            END IF;
        END IF;
    END LOOP;
    IF step IS NOT NULL THEN
        IF date_part('year', step) <> 0 OR date_part('month', step) <> 0 OR step <= '0' THEN
            RAISE invalid_parameter_value USING
                MESSAGE = format('a step of %s is not possible: it must be positive, and of days, '
                    'hours, minutes or seconds', step);
        END IF;
        seconds := greatest(1, date_part('epoch', step));
    END IF;

    is_raw := to_time <= from_time + interval '3 hours' OR cardinality(dimensions) > 1;
    value := CASE by_name
        WHEN 'tenant' THEN 's.tenant_id COLLATE "C"'
        WHEN 'stream_type' THEN 'coalesce(s.stream_type, ''not reported'') COLLATE "C"'
        ELSE format('coalesce((%s), ''not reported'') COLLATE "C"',
            CASE WHEN is_raw THEN by_expression ELSE 's.value' END)
    END;
    IF by_name IS NULL THEN
        value := '''''::text';
    END IF;
    IF is_raw THEN
        source := 'session_qoe AS s WHERE s."timestamp" BETWEEN $1 AND $2'
            || conditions || raw_conditions;
        at := 's."timestamp"';
    ELSE
        base := CASE cardinality(dimensions) WHEN 0 THEN 30 ELSE 60 END;
        seconds := ceil(seconds / (base * 60.0)) * base * 60;
        span_start := date_trunc('hour', from_time, 'UTC');
        span_end := date_trunc('hour', to_time, 'UTC');
        IF span_end < to_time THEN
            span_end := span_end + interval '1 hour';
        END IF;
        rest := tstzmultirange(tstzrange(span_start, span_end));
        -- Rows of a day fit into steps of whole days only. Not "1 day", which may have 23 hours.
        SELECT coalesce(range_agg(tstzrange(b.bucket, b.bucket + interval '24 hours')), '{}')
        INTO days FROM rollup_blocks AS b
        WHERE b.minutes = 1440 AND b.is_merged AND b.bucket >= span_start
          AND b.bucket + interval '24 hours' <= span_end AND coalesce(seconds % 86400, 0) = 0;
        rest := rest - days;
        SELECT coalesce(range_agg(tstzrange(b.bucket, b.bucket + interval '6 hours')), '{}')
        INTO quarters FROM rollup_blocks AS b
        WHERE b.minutes = 360 AND b.is_merged AND b.bucket >= span_start
          AND b.bucket + interval '6 hours' <= span_end AND coalesce(seconds % 21600, 0) = 0
          AND tstzrange(b.bucket, b.bucket + interval '6 hours') <@ rest;
        rest := rest - quarters;
        -- OFFSET 0 keeps each span a look-up in the index.
        source := format(
            '(SELECT 1440::smallint AS minutes, unnest($3) AS span
              UNION ALL SELECT 360::smallint, unnest($4)
              UNION ALL SELECT %s::smallint, unnest($5)) AS spans
             CROSS JOIN LATERAL (
               SELECT * FROM rollups AS r
               WHERE r.dimension = %L AND r.minutes = spans.minutes
                 AND r.bucket >= lower(spans.span) AND r.bucket < upper(spans.span)%s%s
               OFFSET 0) AS s',
            base, coalesce(dimensions[1], ''), conditions, rollup_conditions);
        at := 's.bucket';
    END IF;
    every := make_interval(secs => seconds);
    at := CASE WHEN step IS NULL THEN 'timestamptz ''-infinity'''
               ELSE format('date_bin($6, %s, timestamptz ''epoch'')', at) END;
END
$function$;
COMMENT ON FUNCTION qoe_plan(timestamptz, timestamptz, jsonb, text, interval) IS
    'For qoe(): what is to be read for a question [{version}]';

CREATE OR REPLACE FUNCTION qoe(
    from_time timestamptz, to_time timestamptz, filters jsonb DEFAULT '{}', by text DEFAULT NULL,
    step interval DEFAULT NULL, top integer DEFAULT NULL, percentiles boolean DEFAULT true
) RETURNS TABLE (
    "time" timestamptz, value text, first_at timestamptz, last_at timestamptz,
    {returned},
    error_rate float8, start_failure_rate float8, exit_rate float8, never_started_rate float8,
    trouble_rate float8, rebuffering float8, rebuffers_per_hour float8, bitrate_bps float8,
    startup_p50_ms float8, startup_p75_ms float8, startup_p95_ms float8, startup_p99_ms float8,
    startup_score float8, smoothness_score float8, success_score float8
)
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 100
SET search_path = {schema}, pg_temp
SET jit = off
-- The planner cannot know how many bins there are, and takes them for few.
SET enable_nestloop = off
SET enable_sort = off
AS $function$
DECLARE
    plan record;
    is_grouped CONSTANT boolean := by IS NOT NULL OR step IS NOT NULL;
    columns text;
BEGIN
    SELECT * INTO plan FROM qoe_plan(from_time, to_time, filters, by, step);
    -- Rows of both sources look the same: sessions come in groups with one startup bin each.
    IF plan.is_raw THEN
        columns := 'min(s."timestamp") AS first_at, max(s."timestamp") AS last_at,
            {raw},
            CASE WHEN {startup_bin} IS NOT NULL THEN ARRAY[{startup_bin}] END AS startup_bins,
            ARRAY[count(*)::integer] AS startup_counts';
    ELSE
        columns := 's.first_at, s.last_at, {kept}, s.startup_bins, s.startup_counts';
    END IF;
    RETURN QUERY EXECUTE
        'WITH parts AS ' || CASE WHEN plan.is_raw THEN '' ELSE 'NOT ' END || 'MATERIALIZED (
           SELECT ' || plan.at || ' AS t, ' || plan.value || ' AS v, ' || columns
        || ' FROM ' || plan.source
        || CASE WHEN plan.is_raw THEN ' GROUP BY 1, 2, {startup_bin}' ELSE '' END || '
         )'
        || CASE WHEN top IS NULL THEN ', counted AS NOT MATERIALIZED (SELECT * FROM parts)' ELSE ', most AS MATERIALIZED (
           SELECT v FROM parts GROUP BY v ORDER BY sum(sessions) DESC, v LIMIT $7
         ), counted AS NOT MATERIALIZED (SELECT * FROM parts WHERE v IN (SELECT v FROM most))' END || ', sums AS MATERIALIZED (
           SELECT ' || CASE WHEN is_grouped THEN 't, v' ELSE 'timestamptz ''-infinity'' AS t, ''''::text AS v' END || ',
             row_number() OVER () AS g, min(first_at) AS first_at, max(last_at) AS last_at, {sums}
           FROM counted ' || CASE WHEN is_grouped THEN 'GROUP BY t, v' ELSE '' END || '
         )'
        || CASE WHEN NOT percentiles THEN ', estimates AS (
           SELECT NULL::bigint AS g, NULL::integer AS p50, NULL::integer AS p75, NULL::integer AS p95,
                  NULL::integer AS p99
           WHERE false
         )' ELSE ', bins AS (
           -- Group and bin as one number, which is added up in half the time. No bin is over 1,500.
           SELECT key, sum(n)::float8 AS n
           FROM (SELECT s.g * 2048 + unnest(c.startup_bins) AS key, unnest(c.startup_counts) AS n
                 FROM counted AS c JOIN sums AS s USING (t, v)
                 WHERE c.startup_bins IS NOT NULL) AS b
           GROUP BY key
         ), ranked AS (
           SELECT key / 2048 AS g, (key % 2048)::integer AS bin,
                  sum(n) OVER (PARTITION BY key / 2048 ORDER BY key) AS below
           FROM bins
         ), estimates AS (
           SELECT g,
                  min(bin) FILTER (WHERE below > 0.5::float8 * (s.started - 1)) AS p50,
                  min(bin) FILTER (WHERE below > 0.75::float8 * (s.started - 1)) AS p75,
                  min(bin) FILTER (WHERE below > 0.95::float8 * (s.started - 1)) AS p95,
                  min(bin) FILTER (WHERE below > 0.99::float8 * (s.started - 1)) AS p99
           FROM ranked JOIN sums AS s USING (g) GROUP BY g
         )' END
        -- A line must not run across steps in which nothing began.
        || CASE WHEN step IS NOT NULL AND by IS NULL THEN ', steps AS (
           SELECT generate_series(min(t), max(t), $6) AS t, ''''::text AS v FROM sums
         )' ELSE ', steps AS (SELECT t, v FROM sums)' END || '
         SELECT ' || CASE WHEN step IS NULL THEN 'NULL::timestamptz' ELSE 't' END || ',
                ' || CASE WHEN by IS NULL THEN 'NULL::text' ELSE 'v' END || ', s.first_at, s.last_at,
                {zeros},
                s.failed::float8 / nullif(s.sessions, 0),
                s.start_failed::float8 / nullif(s.sessions, 0),
                s.exited_before_start::float8 / nullif(s.sessions, 0),
                (s.start_failed + s.exited_before_start)::float8 / nullif(s.sessions, 0),
                s.bad::float8 / nullif(s.sessions, 0),
                s.rebuffer_time_ms::float8 / nullif(s.watched_ms, 0),
                3600000 * s.rebuffer_count::float8 / nullif(s.counted_watched_ms, 0),
                1000 * s.rated_kbits::float8 / nullif(s.rated_play_time_ms, 0),
                {p50}, {p75}, {p95}, {p99},
                s.startup_score_milli / 1000.0::float8 / nullif(s.started, 0),
                s.smoothness_score_milli / 1000.0::float8 / nullif(s.played, 0),
                -- 100 where played without an error, 50 for an exit, 0 with an error.
                (100 * (s.played - s.failed + s.start_failed) + 50 * s.exited_before_start)::float8
                  / nullif(s.played + s.start_failed + s.exited_before_start, 0)
         FROM steps LEFT JOIN sums AS s USING (t, v) LEFT JOIN estimates AS e ON e.g = s.g
         ORDER BY t, s.sessions DESC NULLS LAST, v'
    USING from_time, to_time, plan.days, plan.quarters, plan.rest, plan.every, top;
END
$function$;
COMMENT ON FUNCTION qoe(timestamptz, timestamptz, jsonb, text, interval, integer, boolean) IS
    'Quality of experience of the sessions of a time range, filtered, by the values of a dimension and by steps of time. Ranges over 3 hours with at most one dimension are read from rollups, rounded outward to whole hours; others from session_qoe. See docs/sql.md [{version}]';

CREATE OR REPLACE FUNCTION qoe_startup(
    from_time timestamptz, to_time timestamptz, filters jsonb DEFAULT '{}'
) RETURNS TABLE ("xMin" integer, "xMax" integer, sessions bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 41
SET search_path = {schema}, pg_temp
SET jit = off
AS $function$
DECLARE
    plan record;
BEGIN
    SELECT * INTO plan FROM qoe_plan(from_time, to_time, filters, NULL, NULL);
    RETURN QUERY EXECUTE CASE WHEN plan.is_raw THEN
        'WITH bars AS MATERIALIZED (
           SELECT least(s.player_startup_ms / 250, 40)::integer AS bar, count(*)::float8 AS n
           FROM ' || plan.source || ' AND s.player_startup_ms IS NOT NULL GROUP BY 1
         )'
    ELSE
        -- What is in a bin is taken to lie evenly in it.
        'WITH bins AS MATERIALIZED (
           SELECT CASE WHEN bin = 0 THEN 0 ELSE exp({ln_gamma} * (bin - 1)) END AS low,
                  exp({ln_gamma} * bin) AS high, sum(n)::float8 AS n
           FROM (SELECT unnest(s.startup_bins) AS bin, unnest(s.startup_counts) AS n
                 FROM ' || plan.source || ') AS b
           GROUP BY bin
         ), bars AS MATERIALIZED (
           SELECT bar, sum(n * (least(high, until) - greatest(low, bar * 250)) / (high - low)) AS n
           FROM generate_series(0, 40) AS bar
           CROSS JOIN LATERAL (SELECT CASE WHEN bar < 40 THEN bar * 250 + 250
                                           ELSE ''Infinity''::float8 END AS until) AS u
           JOIN bins ON high > bar * 250 AND low < until
           GROUP BY bar
         )'
    END || ', added AS (
           SELECT bar, sum(coalesce(n, 0)) OVER (ORDER BY bar) AS n
           FROM generate_series(0, 40) AS bar LEFT JOIN bars USING (bar)
         )
         -- Rounded so that the bars add up.
         SELECT bar * 250, bar * 250 + 250, (round(n) - round(lag(n, 1, 0::float8) OVER (ORDER BY bar)))::bigint
         FROM added WHERE EXISTS (SELECT FROM bars) ORDER BY bar'
    USING from_time, to_time, plan.days, plan.quarters, plan.rest, plan.every;
END
$function$;
COMMENT ON FUNCTION qoe_startup(timestamptz, timestamptz, jsonb) IS
    'Histogram of startup times in steps of 250 ms, the last one 10 s and more; the rows are those of qoe() [{version}]';

CREATE OR REPLACE FUNCTION qoe_delay(
    from_time timestamptz, to_time timestamptz, filters jsonb DEFAULT '{}', by text DEFAULT NULL,
    step interval DEFAULT NULL
) RETURNS TABLE (
    "time" timestamptz, value text, sessions bigint, delay_p50_ms float8, delay_p95_ms float8
)
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 100
SET search_path = {schema}, pg_temp
SET jit = off
AS $function$
DECLARE
    plan record;
BEGIN
    SELECT * INTO plan FROM qoe_plan(from_time, to_time, filters, by, step);
    RETURN QUERY EXECUTE
        'WITH bins AS (
           SELECT t, v, bin, sum(n)::float8 AS n
           FROM (SELECT ' || plan.at || ' AS t, ' || plan.value || ' AS v, '
        || CASE WHEN plan.is_raw THEN '{delay_bin} AS bin, 1 AS n'
                ELSE 'unnest(s.delay_bins) AS bin, unnest(s.delay_counts) AS n' END || '
                 FROM ' || plan.source || ') AS b
           WHERE bin IS NOT NULL
           GROUP BY t, v, bin
         ), ranked AS (
           SELECT t, v, bin, sum(n) OVER (PARTITION BY t, v ORDER BY bin) AS below,
                  sum(n) OVER (PARTITION BY t, v) AS n
           FROM bins
         )
         SELECT ' || CASE WHEN step IS NULL THEN 'NULL::timestamptz' ELSE 't' END || ',
                ' || CASE WHEN by IS NULL THEN 'NULL::text' ELSE 'v' END || ', n::bigint, '
        || '{delay_p50}, {delay_p95}
         FROM (SELECT t, v, n, min(bin) FILTER (WHERE below > 0.5 * (n - 1)) AS p50,
                      min(bin) FILTER (WHERE below > 0.95 * (n - 1)) AS p95
               FROM ranked GROUP BY t, v, n) AS e
         ORDER BY t, n DESC, v'
    USING from_time, to_time, plan.days, plan.quarters, plan.rest, plan.every;
END
$function$;
COMMENT ON FUNCTION qoe_delay(timestamptz, timestamptz, jsonb, text, interval) IS
    'Median and 95th percentile of received_at - reported_at in milliseconds; arguments as of qoe() [{version}]';

CREATE OR REPLACE FUNCTION qoe_values(
    from_time timestamptz, to_time timestamptz, filters jsonb DEFAULT '{}',
    dimensions text[] DEFAULT NULL
) RETURNS TABLE (dimension text, value text, sessions bigint, bad bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE ROWS 200
SET search_path = {schema}, pg_temp
SET jit = off
AS $function$
DECLARE
    asked CONSTANT text[] := coalesce(dimensions, 'stream_type'::text || ARRAY(
        SELECT d.name FROM qoe_dimensions() AS d WHERE d.name NOT LIKE 'error%'));
    plan record;
    asked_one text;
    is_partial boolean;
    queries text[] := '{}';
    -- Of those that are read from rollups: all the same, as no row is shorter than half an hour.
    days tstzmultirange;
    quarters tstzmultirange;
    rest tstzmultirange;
    -- Of those that are read from the sessions: all at once, as a pass takes long.
    source text;
    expressions text[] := '{}';
    pairs text[] := '{}';
BEGIN
    FOREACH asked_one IN ARRAY asked LOOP
        SELECT * INTO plan FROM qoe_plan(from_time, to_time, filters, asked_one, NULL);
        is_partial := EXISTS (
            SELECT FROM qoe_dimensions() AS d WHERE d.name = asked_one AND d.only_with_value);
        IF plan.is_raw AND NOT is_partial THEN
            source := plan.source;
            expressions := expressions || format('%s AS v%s', plan.value, cardinality(expressions));
            pairs := pairs || format('(%L, v%s)', asked_one, cardinality(pairs));
        ELSE
            IF NOT plan.is_raw THEN
                days := plan.days;
                quarters := plan.quarters;
                rest := plan.rest;
            END IF;
            queries := queries || format('SELECT %L::text, %s, %s FROM %s GROUP BY 2', asked_one,
                plan.value,
                CASE WHEN plan.is_raw THEN 'count(*), count(*) FILTER (WHERE s.bad)'
                     ELSE 'sum(s.sessions), coalesce(sum(s.bad), 0)::bigint' END,
                plan.source);
        END IF;
    END LOOP;
    IF source IS NOT NULL THEN
        queries := queries || format(
            'SELECT * FROM (
               WITH combined AS MATERIALIZED (
                 SELECT %s, count(*) AS n, count(*) FILTER (WHERE s.bad) AS bad FROM %s GROUP BY %s
               )
               SELECT p.dimension, p.value, sum(n)::bigint, sum(bad)::bigint
               FROM combined CROSS JOIN LATERAL (VALUES %s) AS p (dimension, value)
               GROUP BY 1, 2) AS r',
            array_to_string(expressions, ', '), source,
            (SELECT string_agg(place::text, ', ') FROM generate_series(1, cardinality(expressions)) AS place),
            array_to_string(pairs, ', '));
    END IF;
    IF cardinality(queries) > 0 THEN
        RETURN QUERY EXECUTE array_to_string(queries, ' UNION ALL ') || ' ORDER BY 1, 3 DESC, 2'
        USING from_time, to_time, days, quarters, rest;
    END IF;
END
$function$;
COMMENT ON FUNCTION qoe_values(timestamptz, timestamptz, jsonb, text[]) IS
    'Sessions, and those with trouble, of each value of several dimensions; without a list: of stream_type and all dimensions but those of errors. Reads what qoe() reads [{version}]';

CREATE OR REPLACE FUNCTION qoe_step(
    from_time timestamptz, to_time timestamptz, filters jsonb DEFAULT '{}', points integer DEFAULT 120
) RETURNS interval
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = {schema}, pg_temp
SET jit = off
AS $function$
DECLARE
    ladder CONSTANT integer[] := '{60, 300, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 604800}';
    length float8;
    plan record;
    -- One question for each dimension with a filter, and first for those that all rows have.
    shared jsonb := '{}';
    alone jsonb[] := '{}';
    entry record;
    one jsonb;
    found float8;
    total float8;
    sessions float8;
    floor_step float8;
    step integer;
BEGIN
    IF NOT (isfinite(from_time) AND isfinite(to_time)) THEN
        RETURN interval '7 days';
    END IF;
    length := date_part('epoch', to_time - from_time);
    FOR entry IN SELECT * FROM qoe_filters(filters) LOOP
        one := jsonb_build_object(entry.name, entry.chosen);
        IF entry.name IN ('tenant', 'stream_type') THEN
            shared := shared || one;
        ELSE
            alone := alone || one;
        END IF;
    END LOOP;
    IF length <= 3 * 3600 THEN
        alone := '{}';
        shared := filters;
    END IF;
    -- With several dimensions, an estimate as if they were independent: counting would read all
    -- sessions of the range.
    FOREACH one IN ARRAY '{}'::jsonb || alone LOOP
        SELECT * INTO plan FROM qoe_plan(from_time, to_time, shared || one, NULL, NULL);
        EXECUTE 'SELECT ' || CASE WHEN plan.is_raw THEN 'count(*)' ELSE 'sum(s.sessions)' END
            || '::float8 FROM ' || plan.source
        INTO found USING from_time, to_time, plan.days, plan.quarters, plan.rest;
        IF total IS NULL THEN
            total := coalesce(found, 0);
            sessions := total;
        ELSE
            sessions := sessions * coalesce(found, 0) / nullif(total, 0);
        END IF;
    END LOOP;
    -- What the points allow, and what qoe() has.
    floor_step := greatest(length / greatest(points, 1), CASE
        WHEN length <= 3 * 3600 OR cardinality(alone) > 1 THEN 60
        WHEN cardinality(alone) = 1 THEN 3600
        ELSE 1800 END);
    step := (
        SELECT min(s) FROM unnest(ladder) AS s
        WHERE s >= greatest(floor_step, least(300 * length / nullif(sessions, 0), length / 6)));
    -- Where that leaves fewer than six, a shorter one, as far as there is one.
    IF step > length / 6 THEN
        step := coalesce(
            (SELECT max(s) FROM unnest(ladder) AS s WHERE s < step AND s >= floor_step), step);
    END IF;
    -- Years: whole weeks.
    RETURN make_interval(secs => coalesce(step, 604800 * ceil(floor_step / 604800)));
END
$function$;
COMMENT ON FUNCTION qoe_step(timestamptz, timestamptz, jsonb, integer) IS
    'A step for qoe() with which a line says something: about 300 sessions each on average, at least about six and at most so many steps [{version}]';
