"""PostgreSQL by asyncpg: the pool, and what each caller asks of a shard.

The SQL stands in `*.sql`, the schema in `schema/`.
"""
