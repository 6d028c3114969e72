SELECT 1; -- functions_001
