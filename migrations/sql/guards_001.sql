SELECT 1; -- guards_001
