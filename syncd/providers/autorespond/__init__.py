"""Autorespond (e-Act) REST API 1.0, all 29 endpoints.

The files, in the order in which an answer passes them: ``endpoints`` (the table), ``envelope`` and ``elements`` (find
the payload, cut long lists), ``wire`` and ``formats`` (keys and values), ``decode`` (records), ``streams`` (what can be
pulled), ``judgement`` (what an answer means), ``writes`` and ``conversations`` (what can be sent), ``readbacks`` (what
shows that it arrived), ``provider``. ``wording`` says how the CRM may be quoted.

The API's quirks, each with a test of the same name in ``tests/unit/test_autorespond_quirks.py``:

* ``verbs_are_a_guess``: the reference names none, so settings may override verb and place of every write.
* ``put_parameters_go_in_the_query``: servlet containers do not read a form on PUT.
* ``joining_and_leaving_share_a_path``: only the verb tells them apart, so they may never have the same one.
* ``key_travels_in_the_query``: the one form that was seen to work, on every call but ``version``.
* ``paths_are_irregular``: one letter tells an invoice from its PDF, and an invoice number may hold a slash.
* ``payload_comes_in_three_envelopes``: under ``data``, under a key of its own, or bare.
* ``errors_come_under_200``: a truthy ``error`` is an error whatever the status.
* ``missing_list_is_not_an_empty_list``: null is empty; nothing there is a change of shape.
* ``null_object_is_not_found``: a relation that does not exist may be null, 404 or an error.
* ``silence_is_a_yes``: an empty 2xx answer to a write is accepted, and says no more.
* ``null_is_a_no``: null on a write is no yes; it is how a thing that is not there looks on a read.
* ``false_is_a_no``: a write that answers false has failed for good.
* ``booleans_have_many_spellings``: and any other than those is unknown, not false.
* ``times_have_no_zone``: naive ones are read as Dutch; the hour that comes twice in autumn is noted.
* ``dates_have_many_formats``: ISO, DD-MM-YYYY and epoch milliseconds, never MM-DD.
* ``dotted_amounts_are_ambiguous``: ``1.234`` as a text is refused.
* ``ids_are_numbers_or_digits``: both become one text; 0 refers to nothing.
* ``invoice_numbers_are_texts``: leading zeros and prefixes are part of them, and a credit invoice may share one.
* ``order_endpoints_disagree``: two names each for the address and the end of a subscription.
* ``access_code_is_never_kept``: it may be a secret, so it is not even in ``raw``.
* ``fields_do_not_say_whose_they_are``: standard fields are known by their code alone, and never written.
* ``field_values_cannot_be_read``: a set value is accepted, never verified.
* ``created_field_has_no_code_yet``: the answer is an id; the code comes with the next read.
* ``tags_are_listed_by_name``: and added by id; two of one name cannot be told apart, a missing one not created.
* ``upsert_finds_by_address``: so a known relation's present address is asked for first.
* ``empty_texts_are_untested``: what the upsert does with one is unknown, so none is sent unasked.
* ``subscriptions_are_events``: the latest of each list counts.
* ``list_calls_are_never_repeated_blindly``: each one mails or notes something.
* ``hours_count_back_from_their_now``: not from ours, so a request gets a margin for its way.
* ``date_from_may_exclude_its_day``: so two days more are asked for than are claimed.
"""

from syncd.providers.autorespond.provider import provider

__all__ = ["provider"]
