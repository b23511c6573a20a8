"""`cotacoes up`: the whole system on one machine, from its topology to its last process.

topology            which services run, with which settings, in which order
running_system      one run, from the first start to the last stop
supervision/        processes that are started in order, kept running, and stopped without an orphan
embedded_servers    private PostgreSQL and Valkey, from wheels
data_folder         the folder of one system, locked
control             the channel by which commands reach a running system
live_view           what a person sees of it
"""
