//! Who may see what: Cedar policies, decided once per organization, role, purpose and division.
