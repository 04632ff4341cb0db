"""Names in SQL whose meaning is known: functions, settings, keywords; the lists behind ``rawsql``."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Chosen from the functions of PostgreSQL 18 and SQLite 3.40 that applications use: a name is here when every function
# of that name has pg_proc.provolatile = 'i' in PostgreSQL (where it has the name) and SQLITE_DETERMINISTIC in SQLite
# (where it does; the flag is not kept for aggregates and window functions, which are pure by nature). ``length`` is
# here although PostgreSQL has a second, stable one, of bytes in a named encoding. Left out because their result depends
# on the session's settings ('s'): concat, format, to_char, json_agg, to_json, row_to_json, date_trunc, extract, more.
# tests/write/test_rawsql.py compares the list with the servers that run the tests.
PURE_FUNCTIONS = _words(
    """
    count sum avg min max total group_concat every bool_and bool_or bit_and bit_or bit_xor string_agg array_agg stddev
    stddev_pop stddev_samp variance var_pop var_samp corr covar_pop covar_samp mode percentile_cont percentile_disc
    regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy row_number rank
    dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value

    lower upper initcap length char_length character_length octet_length bit_length bit_count trim btrim ltrim rtrim
    substr substring left right lpad rpad repeat replace translate reverse split_part strpos position overlay ascii
    chr char unicode starts_with instr hex unhex quote printf quote_ident regexp_replace regexp_match regexp_matches
    regexp_split_to_array regexp_split_to_table regexp_count regexp_instr regexp_like regexp_substr string_to_array
    string_to_table md5 sha224 sha256 sha384 sha512 encode decode to_hex to_bin to_oct normalize is_normalized unistr
    soundex glob likelihood likely unlikely zeroblob typeof

    abs ceil ceiling floor round trunc sign sqrt cbrt power pow exp ln log log10 log2 mod div gcd lcm factorial
    degrees radians pi sin cos tan asin acos atan atan2 cot sinh cosh tanh asinh acosh atanh width_bucket scale
    min_scale trim_scale aggregate_strings cube grouping grouping_sets rollup greatest least coalesce nullif ifnull
    iif num_nulls num_nonnulls

    json_array_length json_extract json_extract_path json_extract_path_text json_object_keys json_typeof json_type
    json_valid json_quote json json_array json_object json_insert json_replace json_set json_patch json_remove
    json_group_array json_group_object json_each json_each_text json_tree json_array_elements json_array_elements_text
    json_strip_nulls jsonb_array_length jsonb_extract_path jsonb_extract_path_text jsonb_object_keys jsonb_typeof
    jsonb_set jsonb_set_lax jsonb_insert jsonb_pretty jsonb_strip_nulls jsonb_array_elements jsonb_array_elements_text
    jsonb_each jsonb_each_text jsonb_path_exists jsonb_path_match jsonb_path_query jsonb_path_query_array
    jsonb_path_query_first jsonb_concat jsonb_contains jsonb_exists

    array_length array_append array_prepend array_cat array_dims array_fill array_lower array_ndims array_position
    array_positions array_remove array_replace array_upper cardinality unnest trim_array generate_subscripts isempty
    lower_inc upper_inc lower_inf upper_inf int4range int8range numrange daterange tsrange tstzrange range_merge
    make_date make_time make_interval make_timestamp justify_days justify_hours justify_interval isfinite date_bin
    uuid_extract_version uuid_extract_timestamp ts_rank ts_rank_cd tsvector_to_array numnode querytree setweight strip
    """
)
"""Functions whose result depends on nothing but their arguments."""

HARMLESS_FUNCTIONS = _words(
    """
    now clock_timestamp statement_timestamp transaction_timestamp timeofday current_date current_time
    current_timestamp localtime localtimestamp age date_part date_trunc extract to_char to_date to_timestamp to_number
    date time datetime julianday unixepoch strftime timediff curdate curtime sysdate utc_date utc_time utc_timestamp
    unix_timestamp from_unixtime date_format str_to_date year month day hour minute second

    cast concat concat_ws format array_to_string convert convert_from convert_to quote_literal quote_nullable json_agg
    jsonb_agg json_object_agg jsonb_object_agg json_build_object json_build_array jsonb_build_object jsonb_build_array
    json_populate_record json_populate_recordset json_to_record json_to_recordset to_json to_jsonb row_to_json
    array_to_json json_value json_query json_exists json_table json_contains json_unquote if isnull generate_series
    array_sample array_shuffle any_value to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery
    ts_headline similarity word_similarity highlight snippet bm25 match

    random rand randomblob gen_random_uuid uuid uuid_generate_v1 uuid_generate_v4 uuidv4 uuidv7 next_value nextval
    currval lastval setval changes total_changes last_insert_rowid last_insert_id row_count found_rows

    version sqlite_version sqlite_source_id sqlite_compileoption_get sqlite_compileoption_used database schema user
    connection_id current_schema current_schemas current_database current_user session_user current_setting
    current_catalog inet_client_addr inet_client_port inet_server_addr inet_server_port has_table_privilege
    has_schema_privilege has_database_privilege has_column_privilege has_function_privilege has_sequence_privilege
    format_type obj_description col_description shobj_description to_regclass to_regtype pg_backend_pid
    pg_blocking_pids pg_is_in_recovery pg_typeof pg_get_constraintdef pg_get_expr pg_function_is_visible
    pg_get_functiondef pg_get_indexdef pg_get_ruledef pg_get_serial_sequence pg_get_triggerdef pg_get_userbyid
    pg_get_viewdef pg_table_is_visible pg_type_is_visible pg_database_size pg_indexes_size pg_relation_size
    pg_table_size pg_total_relation_size pg_size_pretty pg_postmaster_start_time pg_encoding_to_char
    pg_current_xact_id txid_current txid_current_if_assigned pg_current_wal_lsn pg_last_wal_replay_lsn pg_sleep
    pg_notify pg_cancel_backend pg_terminate_backend pg_advisory_lock pg_advisory_lock_shared pg_advisory_unlock
    pg_advisory_unlock_all pg_advisory_unlock_shared pg_advisory_xact_lock pg_advisory_xact_lock_shared
    pg_try_advisory_lock pg_try_advisory_lock_shared pg_try_advisory_xact_lock pg_try_advisory_xact_lock_shared
    get_lock release_lock sleep pragma_table_info pragma_table_xinfo pragma_table_list pragma_index_info
    pragma_index_list pragma_index_xinfo pragma_foreign_key_list pragma_database_list pragma_collation_list
    pragma_function_list pragma_compile_options
    """
)
"""Functions whose result is not pure, but which write to no table. Sequences are none: no cached read sees them."""

NOT_CALLS = _words(
    """
    all and any array as asc between both by case check collate cross desc distinct else end except exists filter for
    from full group having ilike in inner intersect is join lateral like limit materialized natural not notnull null
    of offset on only or order outer over partition range recursive returning row rows select sets similar some
    symmetric table then to union unique using values when where window with within
    """
)
"""Reserved words that a parenthesis may follow; no function has such a name unquoted."""

HARMLESS_PRAGMAS = _words(
    """
    collation_list compile_options data_version database_list foreign_key_check foreign_key_list freelist_count
    function_list index_info index_list index_xinfo integrity_check module_list page_count pragma_list quick_check
    table_info table_list table_xinfo

    analysis_limit auto_vacuum automatic_index busy_timeout cache_size cache_spill cell_size_check
    checkpoint_fullfsync foreign_keys fullfsync incremental_vacuum journal_mode journal_size_limit locking_mode
    max_page_count mmap_size optimize page_size query_only secure_delete shrink_memory soft_heap_limit synchronous
    temp_store threads user_version wal_autocheckpoint wal_checkpoint
    """
)
"""PRAGMAs of SQLite that only tell, or set storage and speed: no later read means anything else because of them."""

HARMLESS_SETTINGS = _words(
    """
    application_name client_min_messages deadlock_timeout enable_hashjoin enable_indexscan enable_mergejoin
    enable_nestloop enable_seqscan idle_in_transaction_session_timeout idle_session_timeout innodb_lock_wait_timeout
    jit lock_timeout lock_wait_timeout log_min_duration_statement log_statement maintenance_work_mem
    max_execution_time max_parallel_workers_per_gather net_read_timeout net_write_timeout random_page_cost
    seq_page_cost statement_timeout synchronous_commit temp_buffers transaction_timeout wait_timeout work_mem
    """
)
"""Settings that ``SET name = value`` may change without any row meaning anything else."""
