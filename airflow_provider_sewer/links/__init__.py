"""Links from Airflow's pages to elsewhere."""
